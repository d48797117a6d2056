"""A trigger through which the database itself records changes of jobs."""

#: Written by the database, not by the code under test: each change of a job's status.
TRIGGER = """
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO chaos_change (at, job_id, old_status, new_status, attempt)
        VALUES (clock_timestamp(), OLD.id, OLD.status, 'deleted', OLD.attempt);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO chaos_change (at, job_id, old_status, new_status, attempt)
        VALUES (clock_timestamp(), NEW.id, '', NEW.status, NEW.attempt);
    ELSE
        INSERT INTO chaos_change (at, job_id, old_status, new_status, attempt,
                                  worker_id, cancel_requested, result)
        VALUES (clock_timestamp(), NEW.id, OLD.status, NEW.status, NEW.attempt,
                COALESCE(NEW.worker_id, OLD.worker_id),
                NEW.cancel_requested_at IS NOT NULL, NEW.result);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note
 AFTER INSERT OR DELETE OR UPDATE OF status, attempt, cancel_requested_at ON jobs_job
   FOR EACH ROW EXECUTE FUNCTION chaos_note();
"""
