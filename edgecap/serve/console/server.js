// What the console asks of the server. Every answer that is an error throws one line for people.

export class LoginNeeded extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (answer.status === 401) throw new LoginNeeded("A token is needed.");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `The server answers ${answer.status}.`);
  return body;
}

const sent = (method, body) => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export const status = () => ask("/v1/status");
export const profiles = () => ask("/v1/profiles");
export const history = () => ask("/v1/history?limit=50");
export const switchProfile = (name) => ask("/v1/profile", sent("PUT", { name }));
export const login = (token) => ask("/login", sent("POST", { token }));
export const caption = (photo) =>
  ask("/v1/caption", {
    method: "POST",
    headers: { "Content-Type": photo.type || "application/octet-stream" },
    body: photo,
  });

export const describe = (source) =>
  ask(source ? `/v1/describe?source=${encodeURIComponent(source)}` : "/v1/describe", { method: "POST" });

export const preview = (source) =>
  source ? `/v1/preview.mjpeg?source=${encodeURIComponent(source)}` : "/v1/preview.mjpeg";

// Server-sent events. The browser reconnects by itself and says which event it saw last; where it
// gives up (an error status) this tries again, so that a restarted server is found.
export function listen({ onCaption, onStatus, onState }) {
  let feed;
  let again;
  const open = () => {
    feed = new EventSource("/v1/events");
    feed.addEventListener("open", () => onState("live"));
    feed.addEventListener("caption", (event) => onCaption(JSON.parse(event.data)));
    feed.addEventListener("status", (event) => onStatus(JSON.parse(event.data)));
    feed.addEventListener("error", async () => {
      onState("lost");
      if (feed.readyState !== EventSource.CLOSED) return;
      try {
        await status();
      } catch (error) {
        if (error instanceof LoginNeeded) return onState("login");
      }
      clearTimeout(again);
      again = setTimeout(open, 2000);
    });
  };
  open();
  return () => {
    clearTimeout(again);
    feed.close();
  };
}
