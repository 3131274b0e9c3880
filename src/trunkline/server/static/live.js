// Keeps a page fresh: listens to the server's events and lets htmx fetch the changed part anew. Without it every page still works by reloading.

/** Swap the marked parts of this page for fresh ones. */
function refresh(part) {
  if (!document.body.contains(part)) return;
  const open = [...part.querySelectorAll("details")].map((d) => d.open);
  const scroll = part.querySelector(".scroll")?.scrollLeft ?? 0;
  window.htmx.ajax("GET", location.href, { target: "#" + part.id, select: "#" + part.id, swap: "outerHTML" }).then(() => {
    const fresh = document.getElementById(part.id);
    if (!fresh) return;
    [...fresh.querySelectorAll("details")].forEach((d, i) => { if (open[i]) d.open = true; });
    const box = fresh.querySelector(".scroll");
    if (box) box.scrollLeft = scroll;
  });
}

/** Listen for one part; events that come quickly cause one refresh. */
function listen(part) {
  const source = new EventSource("/api/v1/events?" + part.dataset.live.replace("project=", "project=").split("=").map((p, i) => (i ? encodeURIComponent(p) : p)).join("="));
  let due = 0;
  const id = part.id;
  source.onmessage = (event) => {
    if (!("status" in JSON.parse(event.data)) || due) return;
    due = setTimeout(() => { due = 0; const now = document.getElementById(id); if (now) refresh(now); }, 150);
  };
}

for (const part of document.querySelectorAll("[data-live]")) listen(part);
// Between two events only the clocks move.
setInterval(() => { const part = document.querySelector("[data-refresh]"); if (part && document.visibilityState === "visible" && part.querySelector(".running")) refresh(part); }, 5000);
