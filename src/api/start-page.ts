/** What a browser shows at /: that Potluck runs, and what to do next. `version` and `state` are plain words. */
export const startPage = (version: string, state: string): string => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Potluck</title>
<style>body { font: 16px/1.5 sans-serif; max-width: 40em; margin: 3em auto; padding: 0 1em; }</style>
<h1>Potluck ${version}</h1>
<p>This device is ${state}. There is no chat on this page; this is an endpoint for programs.</p>
<ul>
<li>Chat in a terminal: <code>npm run -s potluck -- chat</code>
<li>Any OpenAI client: its base URL is <code>/v1</code> at this address, its API key may be anything
<li><a href="/v1/models">Models</a>
<li><a href="/potluck/status">Which device does what</a>, in a terminal: <code>npm run -s potluck -- status</code>
</ul>
</html>
`;
