// Keeps a page up to date while its rows change, without a reload.
//
// The page has one element [data-live]. While it has data-poll (milliseconds), the script
// asks the page's own address for its [data-part]s again. It replaces only the parts that
// changed, and keeps the focus and open <details>. The server ends the polling by leaving
// data-poll out.
"use strict";
(() => {
  const LONGEST = 10000;
  const live = document.querySelector("[data-live]");
  const says = document.querySelector("[data-live-says]");
  const stale = document.querySelector("[data-live-stale]");
  const ended = document.querySelector("[data-live-ended]");
  // The server's clock minus this one's, so that durations are right even if this clock is
  // wrong.
  const skew = live ? Date.parse(live.dataset.now) - Date.now() : 0;

  const partsOf = (node) => node.querySelectorAll("[data-part]");
  // What the server last sent for each part. The page itself differs, because its times
  // count.
  const sent = new Map();
  for (const part of partsOf(document)) sent.set(part.dataset.part, part.outerHTML);

  const two = (number) => String(number).padStart(2, "0");

  function clock(milliseconds) {
    const seconds = Math.max(0, Math.floor(milliseconds / 1000));
    const days = Math.floor(seconds / 86400);
    const hours = Math.floor(seconds / 3600) % 24;
    const short = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
    if (days) return `${days} d ${two(hours)}:${short}`;
    return hours ? `${hours}:${short}` : short;
  }

  function tick() {
    const now = Date.now() + skew;
    for (const time of document.querySelectorAll("time[data-since], time[data-until]")) {
      const past = now - Date.parse(time.dateTime);
      const text = clock("since" in time.dataset ? past : -past);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  tick();
  setInterval(tick, 1000);
  if (!live) return;

  function isSelectedIn(part) {
    const selection = document.getSelection();
    return !selection.isCollapsed && selection.containsNode(part, true);
  }

  function replace(old, part) {
    for (const details of old.querySelectorAll("details[open][id]")) {
      const same = part.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = true;
    }
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    old.replaceWith(part);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  // Returns whether everything is shown now. A part in which text is selected has to wait.
  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const root = fresh.querySelector("[data-live]");
    let complete = true;
    for (const part of partsOf(fresh)) {
      const key = part.dataset.part;
      const html = part.outerHTML;
      const old = document.querySelector(`[data-part="${CSS.escape(key)}"]`);
      if (!old || sent.get(key) === html) continue;
      if (isSelectedIn(old)) {
        complete = false;
        continue;
      }
      replace(old, document.adoptNode(part));
      sent.set(key, html);
    }
    tick();
    if (root.dataset.says !== live.dataset.says) says.textContent = root.dataset.says;
    if (root.dataset.title) document.title = root.dataset.title;
    live.dataset.says = root.dataset.says ?? "";
    if (!("poll" in root.dataset) && complete) delete live.dataset.poll;
    return complete;
  }

  const shortest = Number(live.dataset.poll);
  let wait = shortest;
  let etag = "";
  let timer = 0;
  let asking = false;

  async function ask() {
    const headers = { "X-Live": "1" };
    if (etag) headers["If-None-Match"] = etag;
    const answer = await fetch(location.href, {
      headers,
      cache: "no-store",
      redirect: "manual",
      signal: AbortSignal.timeout(LONGEST),
    });
    if (answer.status === 304) return false;
    // A redirect leads to the login page.
    if (answer.type === "opaqueredirect" || [403, 404].includes(answer.status)) {
      delete live.dataset.poll;
      ended.hidden = false;
      return false;
    }
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    const complete = show(await answer.text());
    etag = complete ? answer.headers.get("ETag") : "";
    return complete;
  }

  async function poll() {
    clearTimeout(timer);
    if (asking || document.hidden || !("poll" in live.dataset)) return;
    asking = true;
    try {
      const first = !etag;
      const changed = await ask();
      stale.hidden = true;
      wait = changed && !first ? shortest : Math.min(wait * 1.5, LONGEST);
    } catch {
      stale.hidden = false;
      wait = Math.min(wait * 1.5, LONGEST);
    }
    asking = false;
    if ("poll" in live.dataset) timer = setTimeout(poll, wait);
  }

  document.addEventListener("visibilitychange", () => {
    wait = shortest;
    if (!document.hidden) poll();
  });
  if ("poll" in live.dataset) timer = setTimeout(poll, wait);
})();
