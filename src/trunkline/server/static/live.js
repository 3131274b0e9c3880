// Keeps a page fresh: listens to the server's events and fetches the changed part anew. Without it every page still works by reloading.

/** Swap the marked part of this page for a fresh one, if it differs. */
async function refresh(part) {
  const reply = await fetch(location.href, { cache: "no-store" }).catch(() => null); // no answer: the server is being started anew, and hearing begins again then
  if (!reply?.ok || !document.body.contains(part)) return;
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById(part.id);
  if (!fresh || !document.body.contains(part)) return;
  const open = [...part.querySelectorAll("details")].map((d) => d.open);
  [...fresh.querySelectorAll("details")].forEach((d, i) => { if (i < open.length) d.open = open[i]; });
  if (fresh.isEqualNode(part)) return;
  const scroll = part.querySelector(".scroll")?.scrollLeft ?? 0;
  window.htmx.swap("#" + part.id, fresh.outerHTML, { swapStyle: "outerHTML", swapDelay: 0, settleDelay: 0 });
  const box = document.getElementById(part.id)?.querySelector(".scroll");
  if (box) box.scrollLeft = scroll;
}

/** Hear events of things ("run=7"); `joined` is called whenever hearing begins, also again after an interruption: what happened before is not told. */
export function hear(things, joined, told) {
  let source = null, closed = false;
  const [kind, which] = things.split(/=(.*)/s);
  const open = () => {
    source = new EventSource(`/api/v1/events?${kind}=${encodeURIComponent(which)}`);
    source.addEventListener("joined", (event) => joined(JSON.parse(event.data)));
    source.onmessage = (event) => told(JSON.parse(event.data));
    // A browser tries again by itself when a connection ends, but not when a server that is being started anew answers with an error.
    source.onerror = () => { if (source.readyState === EventSource.CLOSED && !closed) setTimeout(() => closed || open(), 3000); };
  };
  open();
  return { close() { closed = true; source.close(); } };
}

/** Listen for one part; events that come quickly cause one refresh. */
function listen(part) {
  let due = 0;
  const id = part.id;
  const soon = () => { due ||= setTimeout(() => { due = 0; const now = document.getElementById(id); if (now) refresh(now); }, 150); };
  hear(part.dataset.live, soon, (message) => { if ("status" in message || "request" in message) soon(); }); // the others are of logs
}

for (const part of document.querySelectorAll("[data-live]")) listen(part);
// Between two events only the clocks move.
setInterval(() => { const part = document.querySelector("[data-refresh]"); if (part && document.visibilityState === "visible" && part.querySelector(".running")) refresh(part); }, 5000);
