// Evaluated in a page with React and Babel; shows a conversation and the time it has left by the documentation's hooks.
(code) => {
  const known = "const { useMemo, useSyncExternalStore, useEffect, useState } = React;";
  const source = `${known}\n${code}\nwindow.hooks = { Chat, useTimeLeft };`;
  new Function(Babel.transform(source, { presets: ["react"] }).code)();

  const { Chat, useTimeLeft } = window.hooks;
  const props = { client: chat.client, id: chat.session.id };
  const Left = () => React.createElement("output", null, useTimeLeft(props.client, props.id)?.remaining);
  const parts = [React.createElement(Chat, { ...props, key: 1 }), React.createElement(Left, { key: 2 })];
  document.body.innerHTML = "<div id=root></div>";
  chat.root = ReactDOM.createRoot(document.getElementById("root"));
  chat.root.render(React.createElement(React.StrictMode, null, parts));
}
