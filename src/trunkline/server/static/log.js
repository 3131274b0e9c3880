// <ci-log>: a log of any size. Only the rows in view are in the page; bytes come by Range in pieces; sections fold; search and the first error are answered by the server.

import { hear } from "./live.js";

const ROW = 20, PIECE = 192 * 1024;
const SGR = /\x1b\[([0-9;]*)m|\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b\][^\x07]*\x07/g;
const NAMES = { 1: "bold", 2: "dim", 3: "italic", 4: "under" };

/** Colour classes after an SGR sequence. */
function after(classes, codes) {
  let now = [...classes];
  for (const code of codes.split(";").map((c) => Number(c) || 0)) {
    if (code === 0) now = [];
    else if (NAMES[code]) now.push(NAMES[code]);
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) now = [...now.filter((c) => !c.startsWith("fg")), "fg" + (code % 10)];
    else if (code === 39) now = now.filter((c) => !c.startsWith("fg"));
    else if (code === 22) now = now.filter((c) => c !== "bold" && c !== "dim");
  }
  return now;
}

/** One line as nodes; control bytes become a visible sign. */
function painted(line) {
  const out = document.createDocumentFragment();
  let classes = [], at = 0;
  const add = (text) => {
    if (!text) return;
    const node = document.createElement("span");
    node.className = classes.join(" ");
    node.textContent = text.replace(/[\x00-\x08\x0b-\x1f]/g, "\ufffd");
    out.append(node);
  };
  for (const match of line.matchAll(SGR)) {
    add(line.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1] !== undefined) classes = after(classes, match[1]);
  }
  add(line.slice(at));
  return out;
}

class CiLog extends HTMLElement {
  async connectedCallback() {
    this.url = `/api/v1/jobs/${this.dataset.job}/trace`;
    this.attempt = `attempt=${this.dataset.attempt}`;
    this.pieces = new Map();
    this.folded = new Set();
    this.hits = [];
    this.current = -1;
    this.follow = this.dataset.ended === "0" && !location.hash;
    if (!(await this.look())) return; // the lines that came with the page stay
    if (!this.outline.size && this.dataset.ended === "1") return;
    this.build();
    this.layout();
    const wanted = location.hash.match(/^#L(\d+)$/);
    if (wanted) this.jump(Number(wanted[1]) - 1);
    else if (this.follow) this.view.scrollTop = this.view.scrollHeight;
    if (this.dataset.ended === "0") this.listen();
    window.addEventListener("hashchange", () => { const m = location.hash.match(/^#L(\d+)$/); if (m) this.jump(Number(m[1]) - 1); });
  }

  /** Learn how long the log is by now; false without an answer: the server is being started anew, and hearing begins again then. */
  async look() {
    const reply = await fetch(`${this.url}/outline?${this.attempt}`).catch(() => null);
    if (!reply?.ok) return false;
    this.outline = await reply.json();
    // Pieces begin where the index knows the line; several entries make one piece.
    this.starts = [];
    for (const [offset, line, time] of this.outline.index)
      if (!this.starts.length || offset - this.starts.at(-1).offset >= PIECE) this.starts.push({ offset, line, time });
    return true;
  }

  build() {
    const plain = [...this.childNodes]; // what stood here without JavaScript stays until the first lines are drawn
    const bar = document.createElement("div");
    bar.className = "logbar";
    bar.innerHTML = '<input type="search" placeholder="Search the log" aria-label="Search the log"><button class="quiet next" hidden>Next</button><span class="found" role="status"></span><button class="quiet error" hidden>First error</button><button class="quiet end">To the end</button>';
    this.found = bar.querySelector(".found");
    const search = bar.querySelector("input");
    search.addEventListener("change", () => this.search(search.value));
    bar.querySelector(".next").addEventListener("click", () => this.step());
    bar.querySelector(".error").addEventListener("click", () => this.jump(this.outline.error));
    bar.querySelector(".end").addEventListener("click", () => { this.follow = true; this.view.scrollTop = this.view.scrollHeight; });
    this.view = document.createElement("div");
    this.view.className = "log logview";
    this.view.tabIndex = 0;
    this.view.setAttribute("role", "log");
    this.view.setAttribute("aria-label", "Log");
    this.space = document.createElement("div");
    this.space.className = "space";
    this.space.append(...plain);
    this.view.append(this.space);
    this.view.addEventListener("scroll", () => {
      this.follow = this.view.scrollTop + this.view.clientHeight > this.view.scrollHeight - 2 * ROW;
      this.draw();
    });
    this.append(bar, this.view);
    new ResizeObserver(() => this.draw()).observe(this.view);
  }

  /** Which lines are shown: all but those inside folded sections and the marks of section ends. */
  layout() {
    this.querySelector(".error").hidden = this.outline.error === null;
    const gaps = [];
    for (const s of this.outline.sections) {
      if (s.to === null) continue;
      if (this.folded.has(s.name)) gaps.push([s.from + 1, s.to + 1]);
      else gaps.push([s.to, s.to + 1]);
    }
    gaps.sort((a, b) => a[0] - b[0]);
    this.runs = [];
    let at = 0, row = 0;
    for (const [from, to] of gaps) {
      if (from > at) { this.runs.push({ row, line: at, count: from - at }); row += from - at; }
      at = Math.max(at, to);
    }
    if (this.outline.lines > at) { this.runs.push({ row, line: at, count: this.outline.lines - at }); row += this.outline.lines - at; }
    this.rows = row;
    this.space.style.height = row * ROW + "px";
    this.heads = new Map(this.outline.sections.map((s) => [s.from, s]));
    this.draw();
  }

  lineOf(row) {
    const run = this.runs.findLast((r) => r.row <= row);
    return run ? run.line + row - run.row : 0;
  }

  rowOf(line) {
    const run = this.runs.findLast((r) => r.line <= line);
    return run ? run.row + Math.min(line - run.line, run.count - 1) : 0;
  }

  async draw() {
    const first = Math.max(0, Math.floor(this.view.scrollTop / ROW) - 10);
    const last = Math.min(this.rows, Math.ceil((this.view.scrollTop + this.view.clientHeight) / ROW) + 10);
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const rows = [];
    for (let row = first; row < last; row++) {
      const line = this.lineOf(row);
      const got = await this.text(line);
      if (turn !== this.turn) return;
      rows.push(this.rowNode(row, line, got));
    }
    this.space.replaceChildren(...rows);
  }

  rowNode(row, line, { text, time }) {
    const node = document.createElement("div");
    node.className = "row" + (this.hits.includes(line) ? " hit" : "") + (this.hits[this.current] === line || location.hash === `#L${line + 1}` ? " current" : "");
    node.style.top = row * ROW + "px";
    const number = document.createElement("a");
    number.className = "n";
    number.href = `#L${line + 1}`;
    number.textContent = line + 1;
    const clock = document.createElement("span");
    clock.className = "t";
    clock.textContent = time ? new Date(time).toTimeString().slice(0, 8) : "";
    node.append(number, clock);
    const shown = text.includes("\r\x1b[0K") ? text.slice(text.lastIndexOf("\r\x1b[0K") + 5) : text;
    const section = this.heads.get(line);
    if (section) {
      const fold = document.createElement("button");
      fold.className = "fold";
      const closed = this.folded.has(section.name);
      fold.setAttribute("aria-expanded", String(!closed));
      fold.textContent = `${closed ? "▸" : "▾"} ${section.title}` + (section.seconds ? `  ${section.seconds} s` : "");
      fold.addEventListener("click", () => { this.folded[closed ? "delete" : "add"](section.name); this.layout(); });
      node.append(fold);
    } else node.append(painted(shown.replace(/\r$/, "").split("\r").at(-1)));
    return node;
  }

  async text(line) {
    const i = this.starts.findLastIndex((s) => s.line <= line);
    if (i < 0) return { text: "" };
    if (i > 0 && line === this.starts[i].line) { // a piece may begin in the middle of this line: then the one before has all of it
      const before = (await this.piece(i - 1))[line - this.starts[i - 1].line];
      if (before) return { text: before, time: this.timeOf(line) };
    }
    const lines = await this.piece(i);
    return { text: lines[line - this.starts[i].line] ?? "", time: this.timeOf(line) };
  }

  /** When the piece of output arrived in which this line began. */
  timeOf(line) {
    const index = this.outline.index;
    let low = 0, high = index.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (index[middle][1] <= line) low = middle; else high = middle - 1;
    }
    return index[low]?.[2];
  }

  /** Fetch a piece once; its first line may have begun in the piece before, its last one may end in the next. */
  async piece(i) {
    const from = this.starts[i].offset, to = this.starts[i + 1]?.offset ?? this.outline.size;
    const known = this.pieces.get(i);
    if (known && known.to === to) return known.lines;
    const whole = (async () => {
      const reply = await fetch(`${this.url}?${this.attempt}`, { headers: { Range: `bytes=${from}-${to + 4096 - 1}` } });
      const bytes = new Uint8Array(await reply.arrayBuffer());
      let end = to - from;
      if (i + 1 < this.starts.length) while (end < bytes.length && bytes[end - 1] !== 10) end++;
      const lines = new TextDecoder().decode(bytes.subarray(0, end)).split("\n");
      return lines;
    })();
    if (this.pieces.size > 60) this.pieces.delete(this.pieces.keys().next().value);
    const kept = { to, lines: await whole };
    this.pieces.set(i, kept);
    return kept.lines;
  }

  jump(line) {
    for (const s of this.outline.sections) if (s.to !== null && line > s.from && line < s.to) this.folded.delete(s.name);
    history.replaceState(null, "", `#L${line + 1}`);
    this.follow = false;
    this.layout();
    this.view.scrollTop = Math.max(0, this.rowOf(line) * ROW - this.view.clientHeight / 3);
  }

  async search(text) {
    const reply = text ? await (await fetch(`${this.url}/search?${this.attempt}&q=${encodeURIComponent(text)}`)).json() : { lines: [] };
    this.hits = reply.lines;
    this.current = -1;
    this.querySelector(".next").hidden = !this.hits.length;
    this.found.textContent = text ? (this.hits.length ? `${this.hits.length}${this.hits.length === 1000 ? "+" : ""} lines` : "not found") : "";
    if (this.hits.length) this.step();
    else this.draw();
  }

  step() {
    this.current = (this.current + 1) % this.hits.length;
    this.found.textContent = `${this.current + 1} of ${this.hits.length}`;
    this.jump(this.hits[this.current]);
  }

  listen() {
    let busy = false, again = false;
    const grow = async () => {
      if (busy) { again = true; return; }
      busy = true;
      if (await this.look()) {
        this.layout();
        if (this.follow) this.view.scrollTop = this.view.scrollHeight;
      }
      busy = false;
      if (again) { again = false; grow(); }
    };
    const told = (message) => {
      if (message.attempt && String(message.attempt) !== this.dataset.attempt) { source.close(); location.reload(); return; }
      grow();
      if (message.ended) source.close();
    };
    const source = hear(`job=${this.dataset.job}`, told, told); // what came between the first look and now is seen when hearing begins
  }
}

customElements.define("ci-log", CiLog);
