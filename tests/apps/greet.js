// The least that a page says: it is there.
const post = (message) => parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
const greet = () => new Promise((resolve) => {
  addEventListener("message", (event) => {
    if (event.data.id !== 1) return;
    post({ method: "ui/notifications/initialized" });
    resolve();
  });
  const params = { protocolVersion: "2026-01-26", appInfo: { name: "page", version: "1" }, appCapabilities: {} };
  post({ id: 1, method: "ui/initialize", params });
});
