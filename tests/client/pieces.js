// Evaluated in a page of the site; gives what the tests in the browser need.
async () => {
  const { createClient } = await import("/static/chat_sessions/client.js");
  const client = createClient();
  window.chat = {
    client,
    frames: [],
    states: [],
    async open(agent = "slow_echo") {
      chat.session = client.session(await client.sessions.open({ agent }));
      return chat.session.id;
    },
    listen(options) {
      chat.stream = chat.session.stream(options);
      chat.stream.on("*", (frame) => chat.frames.push(frame));
      chat.stream.on("state", (state) => chat.states.push(state));
    },
    said: () => chat.frames.filter(({ type }) => type === "message").map(({ data }) => data.content),
    hide(hidden) {
      Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    },
  };
}
