// A terminal in a job: xterm.js on a WebSocket of this server. Bytes go both ways as they are.

const place = document.getElementById("terminal");
const state = document.getElementById("terminal-state");
const again = document.getElementById("terminal-again");
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const terminal = new window.Terminal({
  cursorBlink: true,
  rendererType: "dom",
  fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  fontSize: 13,
  scrollback: 5000,
  screenReaderMode: true,
  theme: { background: colour("--log"), foreground: colour("--logtext"), cursor: colour("--logtext") },
});
const fit = new window.FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open(place);
fit.fit();
new ResizeObserver(() => fit.fit()).observe(place);

let socket = null;
const encoder = new TextEncoder();
terminal.onData((typed) => {
  if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(typed));
});

function connect() {
  again.hidden = true;
  state.textContent = "connecting …";
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/jobs/${place.dataset.job}/terminal`, "terminal.gitlab.com");
  socket.binaryType = "arraybuffer";
  let opened = false;
  socket.onmessage = (message) => {
    if (!opened) state.textContent = "connected";
    opened = true;
    terminal.write(new Uint8Array(message.data));
  };
  socket.onopen = () => {
    state.textContent = "connected";
    terminal.focus();
  };
  socket.onclose = (end) => {
    state.textContent = end.reason || "the connection was lost";
    again.hidden = end.reason.startsWith("the job has ended");
  };
}

again.addEventListener("click", connect);
connect();
