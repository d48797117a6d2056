-- Turns jobs_job into a table with one partition for each week, without copying a row: the
-- existing table becomes the first partition. docs/scaling.md says what that gains and costs.
--
--     psql -1 -v ON_ERROR_STOP=1 -f deploy/postgresql/partitions.sql    (stop workers and site first)
--     SELECT jobs_add_weeks(2);                    -- daily, from cron: prepare the next two weeks
--     SELECT jobs_drop_weeks(current_date - 14);   -- daily: drop the weeks that ended before

-- The smallest id of a moment: a UUIDv7 begins with milliseconds.
CREATE FUNCTION jobs_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

CREATE FUNCTION jobs_add_weeks(ahead integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    monday timestamp;
    -- Storage parameters are not inherited.
    storage text := (SELECT array_to_string(reloptions, ', ') FROM pg_class
                      WHERE oid = 'jobs_job_first'::regclass);
BEGIN
    FOR number IN 1 .. ahead LOOP
        monday := date_trunc('week', now() AT TIME ZONE 'UTC') + number * interval '1 week';
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF jobs_job FOR VALUES FROM (%L) TO (%L) WITH (%s)',
            'jobs_job_' || to_char(monday, 'YYYYMMDD'), jobs_id_at(monday AT TIME ZONE 'UTC'),
            jobs_id_at((monday + interval '1 week') AT TIME ZONE 'UTC'), storage);
    END LOOP;
END $$;

-- A week that still has an unfinished job is kept, with all its rows.
CREATE FUNCTION jobs_drop_weeks(until date) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    name text;
    is_busy boolean;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    FOR name IN SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
                 WHERE inhparent = 'jobs_job'::regclass
                   AND relname ~ '^jobs_job_\d{8}$'
                   AND relname < 'jobs_job_' || to_char(until - 6, 'YYYYMMDD') ORDER BY 1 LOOP
        EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', name);
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I WHERE finished_at IS NULL)', name) INTO is_busy;
        CONTINUE WHEN is_busy;
        EXECUTE format('DELETE FROM jobs_attempt WHERE job_id IN (SELECT id FROM %I)', name);
        -- At the end of the transaction, a check of the foreign key would come too late.
        SET CONSTRAINTS ALL IMMEDIATE;
        EXECUTE format('ALTER TABLE jobs_job DETACH PARTITION %I', name);
        EXECUTE format('DROP TABLE %I', name);
        RETURN NEXT name;
    END LOOP;
END $$;

DO $$
DECLARE
    existing record;
    statement text;
    statements text[] := '{}';
BEGIN
    -- The table's constraints, those of other tables that refer to it, and its indexes keep
    -- their names, so that later migrations find them. The first partition's get new names.
    FOR existing IN SELECT conrelid::regclass AS owner, conname, contype, pg_get_constraintdef(oid) AS text
                  FROM pg_constraint
                 WHERE confrelid = 'jobs_job'::regclass
                    OR conrelid = 'jobs_job'::regclass AND contype IN ('p', 'f') LOOP
        statements := statements || format('ALTER TABLE %s ADD CONSTRAINT %I %s',
                                           existing.owner, existing.conname, existing.text);
        IF existing.contype = 'f' THEN
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', existing.owner, existing.conname);
        END IF;
    END LOOP;
    FOR existing IN SELECT indexname AS name, indexdef AS text FROM pg_indexes
                 WHERE schemaname = current_schema() AND tablename = 'jobs_job' LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', existing.name, existing.name || '_first');
        IF existing.name <> 'jobs_job_pkey' THEN
            statements := statements || existing.text;
        END IF;
    END LOOP;
    ALTER TABLE jobs_job RENAME TO jobs_job_first;
    CREATE TABLE jobs_job (LIKE jobs_job_first INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
        PARTITION BY RANGE (id);
    FOREACH statement IN ARRAY statements LOOP
        -- pg_get_constraintdef and pg_indexes wrote the old name, which the new table has now.
        CONTINUE WHEN statement LIKE '%REFERENCES jobs_job(%';
        EXECUTE statement;
    END LOOP;
    EXECUTE format('ALTER TABLE jobs_job ATTACH PARTITION jobs_job_first FOR VALUES FROM (MINVALUE) TO (%L)',
                   jobs_id_at((date_trunc('week', now() AT TIME ZONE 'UTC') + interval '1 week') AT TIME ZONE 'UTC'));
    -- For ids of any other time: saving must not fail.
    CREATE TABLE jobs_job_other PARTITION OF jobs_job DEFAULT;
    PERFORM jobs_add_weeks(2);
    FOREACH statement IN ARRAY statements LOOP
        CONTINUE WHEN statement NOT LIKE '%REFERENCES jobs_job(%';
        EXECUTE statement;
    END LOOP;
END $$;
