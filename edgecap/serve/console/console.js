// Starts the console: first what is known already, then what happens from now on.

import * as server from "./server.js";
import * as view from "./view.js";

const { at } = view;
let source = ""; // the camera that is shown; empty: the only one
let pictures = false; // whether there is a camera whose pictures are shown
let ahead = Infinity; // milliseconds by which this clock is ahead of the server's
let stop = () => {};

async function start() {
  stop();
  let status;
  try {
    status = await server.status();
  } catch (error) {
    if (error instanceof server.LoginNeeded) return askForToken();
    view.showNote(error.message, true);
    view.showState("lost");
    setTimeout(start, 2000);
    return;
  }
  at("login").hidden = true;
  at("console").hidden = false;
  onStatus(status);
  stop = server.listen({ onCaption, onStatus, onState });
  showPreview();
  const known = await Promise.allSettled([server.history(), server.profiles()]);
  if (known[0].status === "fulfilled") showHistory(known[0].value);
  if (known[1].status === "fulfilled") showProfiles(known[1].value);
}

function onState(state) {
  if (state === "login") return start();
  view.showState(state);
  if (state === "live") showPreview();
}

function onStatus(status) {
  // The smallest difference seen is the clocks' own: what is above it is time on the way.
  ahead = Math.min(ahead, Date.now() - Date.parse(status.time));
  view.showStatus(status, status.sources.find((each) => each.name === source));
  const names = status.sources.map((each) => each.name);
  const blind = names.length > 0 && status.sources.every((each) => each.state !== "running");
  view.showState(names.length === 0 ? "idle" : blind ? "stalled" : "live");
  if (names.length && !names.includes(source)) source = names[0];
  view.fillChoice("source", names.map((name) => [name, name]), source);
  at("describe").disabled = names.length === 0;
  pictures = status.pictures && names.length > 0;
  at("blank").textContent = blank(status, names);
}

function blank(status, names) {
  if (names.length === 0) return "No camera. Drop a photo here to caption it.";
  if (!status.pictures) return "This server shows captions, not pictures.";
  return status.sources[names.indexOf(source)].why || "Waiting for the first picture";
}

function onCaption(event) {
  view.addHistory(event, openPast);
  if (source && event.source !== source) return;
  const skew = Number.isFinite(ahead) ? ahead : 0;
  view.showCaption(event, Math.max(0, Date.now() - Date.parse(event.time) - skew));
}

function showHistory(captions) {
  for (const event of captions) view.addHistory(event, openPast);
  const newest = captions
    .filter((event) => !source || event.source === source)
    .reduce((best, event) => (best && best.id > event.id ? best : event), null);
  if (newest && at("said").dateTime === "") view.showCaption(newest, newest.latency_ms.total);
}

function showProfiles({ profiles, current }) {
  const names = profiles.map(({ name }) => [name, name]);
  view.fillChoice("profile", names, current);
}

function showPreview() {
  if (!pictures) return;
  const preview = at("preview");
  preview.src = `${server.preview(source)}${source ? "&" : "?"}at=${Date.now()}`;
}

function openPast(event) {
  const sure = event.sure ? "" : ", not sure";
  const facts = `${new Date(event.time).toLocaleString()} · ${Math.round(event.confidence * 100)} %${sure}`;
  view.showPhoto(event.thumbnail ?? "", event.text, facts);
  at("photo").scrollIntoView({ block: "nearest" });
}

async function describe() {
  const button = at("describe");
  if (button.disabled || button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  try {
    await server.describe(source);
    view.showNote("");
  } catch (error) {
    view.showNote(error.message, true);
  }
  button.removeAttribute("aria-busy");
}

async function captionPhoto(photo) {
  if (!photo) return;
  view.showNote("Captioning…");
  const begun = performance.now();
  try {
    const answer = await server.caption(photo);
    const took = Math.round(performance.now() - begun);
    const sure = answer.sure ? "" : ", not sure";
    const old = at("photo-picture").src;
    const facts = `${Math.round(answer.confidence * 100)} %${sure} · ${took} ms with the way`;
    view.showPhoto(URL.createObjectURL(photo), answer.text, facts);
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
    view.showNote("");
  } catch (error) {
    if (error instanceof server.LoginNeeded) return askForToken();
    view.showNote(error.message, true);
  }
}

async function switchProfile() {
  try {
    await server.switchProfile(at("profile").value);
    view.showNote(`Profile: ${at("profile").value}`);
  } catch (error) {
    view.showNote(error.message, true);
    showProfiles(await server.profiles());
  }
}

function askForToken() {
  stop();
  view.showState("connecting");
  at("console").hidden = true;
  at("login").hidden = false;
  at("token").focus();
}

async function login(event) {
  event.preventDefault();
  at("login-note").textContent = "";
  try {
    await server.login(at("token").value.trim());
    at("token").value = "";
    await start();
    at("caption").focus();
  } catch (error) {
    const wrong = error instanceof server.LoginNeeded;
    at("login-note").textContent = wrong ? "That is not the token." : error.message;
    at("token").select();
  }
}

function wire() {
  at("describe").addEventListener("click", describe);
  at("profile").addEventListener("change", switchProfile);
  at("source").addEventListener("change", () => {
    source = at("source").value;
    showPreview();
  });
  at("login-form").addEventListener("submit", login);
  at("upload").addEventListener("change", (event) => {
    captionPhoto(event.target.files[0]);
    event.target.value = ""; // the same photo can be chosen again
  });
  const preview = at("preview");
  preview.addEventListener("load", () => showPicture(true));
  preview.addEventListener("error", () => showPicture(false));
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "d" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) describe();
  });
  const field = at("viewfinder");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      field.classList.toggle("dropping", name === "dragenter" || name === "dragover");
      if (name === "drop") captionPhoto(event.dataTransfer.files[0]);
    });
  }
}

function showPicture(seen) {
  at("preview").hidden = !seen;
  at("blank").hidden = seen;
}

wire();
start();
