// Draws what the server tells. Text only ever becomes text: a caption is never read as HTML.

const STAGES = [
  ["capture_age", "Camera"],
  ["preprocess", "Preprocess"],
  ["encode", "Encode"],
  ["decode", "Decode"],
  ["deliver", "Deliver"],
];
const KEPT = 50;

export const at = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

const milliseconds = (value) => (Number.isFinite(value) ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–");
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
const words = (reason) => reason.replaceAll("_", " ");

export function showState(state) {
  const said = {
    connecting: "Connecting",
    live: "Live",
    stalled: "No picture from the camera",
    lost: "Reconnecting",
    idle: "Live, no camera",
  };
  const element = at("state");
  // A status region is read aloud when it changes: it is written only then.
  if (element.dataset.state === state) return;
  element.dataset.state = state;
  element.textContent = said[state] ?? state;
}

export function showCaption(event, delay) {
  const line = at("caption");
  const text = event.text || "(nothing said)";
  if (line.textContent !== text) {
    line.textContent = text;
    line.classList.remove("fresh");
    void line.offsetWidth; // lets the animation start anew
    line.classList.add("fresh");
  }
  line.classList.toggle("unsure", !event.sure);
  const doubt = at("doubt");
  doubt.hidden = event.sure && !event.truncated;
  doubt.textContent = event.sure ? "Cut short by the deadline" : "Not sure";
  const meter = at("meter");
  meter.value = event.confidence;
  meter.optimum = 1;
  meter.low = event.sure ? 0 : 0.999;
  at("confidence").textContent = `${Math.round(event.confidence * 100)} %`;
  at("delay").textContent = milliseconds(delay);
  const said = at("said");
  said.textContent = clock(event.time);
  said.dateTime = event.time;
  showStages(event.latency_ms);
}

function showStages(latency) {
  const body = at("stages").tBodies[0];
  const total = latency.total || 1;
  if (!body.rows.length) {
    for (const [name, title] of [...STAGES, ["total", "Total"]]) {
      const row = body.insertRow();
      row.dataset.stage = name;
      if (name === "total") row.className = "total";
      const head = make("th", title);
      head.scope = "row";
      const bar = make("progress");
      bar.max = 1;
      bar.setAttribute("aria-label", title);
      row.append(head, make("td"), make("td"));
      if (name !== "total") row.cells[1].append(bar);
    }
  }
  for (const row of body.rows) {
    const value = latency[row.dataset.stage];
    row.hidden = value === undefined;
    row.cells[2].textContent = milliseconds(value);
    const bar = row.querySelector("progress");
    if (bar) bar.value = Math.min(1, (value ?? 0) / total);
  }
}

export function showStatus(status, camera) {
  at("frames").textContent = status.frames.toLocaleString();
  at("captions").textContent = status.captions.toLocaleString();
  at("rate").textContent = status.captions_per_second.toFixed(1);
  showReasons(at("skipped"), status.skipped);
  showReasons(at("dropped"), status.dropped);
  at("gate").textContent = gate(camera?.gate ?? status.gate);
  at("model").textContent = `Model: ${status.model}`;
  at("engine").textContent = `Engine: ${status.engine}`;
}

function gate(now) {
  if (!now || now.state === "idle") return "–";
  if (now.state === "passing") return `Passing${now.reason ? `: ${words(now.reason)}` : ""}`;
  return `Nothing new for ${now.held_seconds.toFixed(0)} s`;
}

function showReasons(list, counts) {
  const entries = Object.entries(counts).filter(([, count]) => count > 0);
  if (!entries.length) return list.replaceChildren(make("li", "None", "none"));
  list.replaceChildren(
    ...entries.map(([reason, count]) => {
      const line = make("li");
      line.append(make("span", words(reason)), make("span", count.toLocaleString()));
      return line;
    }),
  );
}

export function addHistory(event, onOpen) {
  const list = at("history");
  at("history-none").hidden = true;
  const kept = [...list.children].find((line) => line.dataset.id === String(event.id));
  if (kept) return;
  const line = make("li");
  line.dataset.id = event.id;
  const button = make("button");
  button.type = "button";
  const picture = make("img");
  picture.alt = "";
  picture.loading = "lazy";
  picture.width = 84;
  picture.height = 52;
  if (event.thumbnail) picture.src = event.thumbnail;
  const said = make("span");
  const when = make("span", clock(event.time), "when");
  if (!event.sure) when.append(" · ", make("b", "not sure"));
  said.append(make("span", event.text || "(nothing said)", "words"), when);
  button.append(picture, said);
  button.addEventListener("click", () => onOpen(event));
  line.append(button);
  const before = [...list.children].find((other) => Number(other.dataset.id) < event.id);
  list.insertBefore(line, before ?? null);
  while (list.children.length > KEPT) list.lastElementChild.remove();
}

export function showPhoto(picture, text, facts) {
  at("photo").hidden = false;
  at("photo-picture").src = picture;
  at("photo-caption").textContent = text;
  at("photo-facts").textContent = facts;
}

export function showNote(text, bad = false) {
  const note = at("note");
  note.textContent = text;
  note.classList.toggle("bad", bad);
}

export function fillChoice(id, values, chosen) {
  const select = at(id);
  const now = [...select.options].map((option) => option.value);
  if (now.join("\n") !== values.map(([value]) => value).join("\n")) {
    select.replaceChildren(
      ...values.map(([value, title]) => {
        const option = make("option", title);
        option.value = value;
        return option;
      }),
    );
  }
  if (document.activeElement !== select && chosen !== undefined) select.value = chosen;
  at(`${id}-choice`).hidden = values.length < (id === "source" ? 2 : 1);
}
