// A backend that signs users in and sends them notices by Hubbub, which it starts itself:
//
//	node examples/notify/backend.js
//
// Open http://localhost:8080. It needs Node.js 20 and, to build Hubbub, Go; what it shows is in README.md.
const crypto = require('node:crypto'), fs = require('node:fs'), http = require('node:http'), path = require('node:path');
const { spawn, execFileSync } = require('node:child_process');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs } = require('node:util');

const { values: flags } = parseArgs({ options: {
  listen: { type: 'string', default: 'localhost:8080' }, // this backend, with its page
  hubbub: { type: 'string', default: 'localhost:8081' }, // where Hubbub shall listen
  public: { type: 'string' }, // where pages find Hubbub, if a proxy stands before it
  program: { type: 'string' }, // the hubbub to run, if it is built already
} });
const live = flags.public || flags.hubbub;

// --- Hubbub, and the calls to it ---

const jwtKey = crypto.randomBytes(32).toString('hex'), apiKey = crypto.randomBytes(16).toString('hex');
let hubbub, stopping;

function startHubbub() {
  const root = path.join(__dirname, '../..');
  if (!flags.program) {
    flags.program = path.join(root, 'bin/hubbub');
    execFileSync('go', ['build', '-o', flags.program, './cmd/hubbub'], { cwd: root, stdio: 'inherit' });
  }
  hubbub = spawn(flags.program, ['serve', '--config', path.join(__dirname, 'hubbub.yaml'), '--listen', flags.hubbub, '--allowed-origins', `http://${flags.listen}`], {
    env: { ...process.env, HUBBUB_JWT_KEY: jwtKey, HUBBUB_API_KEY: apiKey },
    stdio: 'inherit',
    detached: true, // Control-C is for this process, which stops the other in good order
  });
  console.log(`hubbub has the process id ${hubbub.pid}`);
  hubbub.on('exit', () => stopping || setTimeout(startHubbub, 1000)); // pages come back to the new one by themselves
}

// call calls the API. "Not now" and no answer at all are tried again; a publish_id has it published once.
async function call(method, path, body) {
  for (let left = 3; ; left--) {
    const answer = await fetch(`http://${flags.hubbub}/api/v1${path}`, {
      method,
      headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    }).catch((error) => ({ status: 503, text: () => String(error.cause || error) }));
    if (answer.ok || answer.status === 404) return; // 404: this user is not here
    if (left === 0 || (answer.status !== 429 && answer.status !== 503)) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    await sleep(1000 * (answer.headers?.get('Retry-After') || 1));
  }
}

// token says who a page's user is, for a few minutes: the page asks for the next one in time.
function token(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 300 })}`;
  return `${signed}.${crypto.createHmac('sha256', jwtKey).update(signed).digest('base64url')}`;
}

// --- users and notices: what would be in your database ---

const sessions = new Map(); // the cookie's value -> the user's name
const boxes = new Map(); // the user's name -> { notices: [{ id, from, text, time }], read: an id }
let lastId = 0;

function box(user) {
  if (!boxes.has(user)) boxes.set(user, { notices: [], read: 0 });
  return boxes.get(user);
}

// notify writes a notice down and then publishes it: what Hubbub can't bring, the page finds here.
function notify(user, from, text) {
  const notice = { id: ++lastId, from, text, time: Date.now() };
  const { notices } = box(user);
  notices.push(notice);
  if (notices.length > 100) notices.shift();
  call('POST', '/publish', { room: `user:${user}`, content: { notice }, publish_id: `notice-${notice.id}` }).catch(console.error);
}

// --- what the page asks for ---

const isName = (name) => typeof name === 'string' && /^[a-z0-9_-]{1,30}$/.test(name);

const routes = {
  'POST /sign-in': ({ name }, _user, res) => {
    if (!isName(name)) return [400, 'a name has 1 to 30 small letters and digits']; // and here a password is checked
    if (boxes.size === 10_000 && !boxes.has(name)) return [503, 'no more users'];
    if (sessions.size === 10_000) sessions.delete(sessions.keys().next().value); // the oldest
    const id = crypto.randomBytes(16).toString('hex');
    sessions.set(id, name);
    // Where the page has TLS, it is Secure as well.
    res.setHeader('Set-Cookie', `notify=${id}; HttpOnly; SameSite=Strict; Path=/; Max-Age=86400`);
    if (!boxes.has(name)) notify(name, 'the house', `Welcome, ${name}!`);
    // To all clients that this user has open just now, and to none later: nobody needs to know it tomorrow.
    call('POST', '/publish', { user: name, content: { say: 'You have signed in somewhere else, too.' } }).catch(console.error);
    return [204];
  },
  'POST /sign-out': (_body, user, res, id) => {
    sessions.delete(id);
    res.setHeader('Set-Cookie', 'notify=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0');
    call('DELETE', `/users/${encodeURIComponent(user)}`).catch(console.error); // all its pages; who is still signed in comes back
    return [204];
  },
  'GET /me': (_body, user) => [200, { user, hubbub: `http://${live}/ws` }],
  'GET /token': (_body, user) => [200, token(user)],
  'GET /box': (_body, user) => [200, box(user)],
  'POST /read': ({ upTo }, user) => {
    const mine = box(user);
    if (!Number.isSafeInteger(upTo) || upTo > lastId) return [400, 'upTo is the id of a notice'];
    mine.read = Math.max(mine.read, upTo);
    call('POST', '/publish', { room: `user:${user}`, content: { read: mine.read } }).catch(console.error); // to this user's other pages
    return [204];
  },
  'POST /notify': ({ to, text }, user) => {
    if (!isName(to) || !boxes.has(to)) return [404, 'nobody of this name has been here'];
    if (typeof text !== 'string' || !text.trim() || text.length > 200) return [400, 'a notice has 1 to 200 characters'];
    notify(to, user, text.trim());
    return [204];
  },
};

const files = {
  '/': ['text/html', 'index.html'],
  '/style.css': ['text/css', 'style.css'],
  '/app.js': ['text/javascript', 'app.js'],
  '/hubbub.js': ['text/javascript', '../../js/hubbub.js'], // in a project of your own: npm install hubbub-client
};

async function answer(req, res) {
  const [pathname] = req.url.split('?');
  if (req.method === 'GET' && files[pathname]) {
    const [type, file] = files[pathname];
    res.setHeader('Content-Type', `${type}; charset=utf-8`);
    return [200, await fs.promises.readFile(path.join(__dirname, file))];
  }
  if (pathname === '/readyz') return [(await fetch(`http://${flags.hubbub}/readyz`).catch(() => ({ status: 503 }))).status];
  const route = routes[`${req.method} ${pathname}`];
  if (!route) return [404, 'there is nothing at this path'];
  const id = /(?:^|; )notify=(\w+)/.exec(req.headers.cookie)?.[1];
  const user = sessions.get(id);
  if (!user && pathname !== '/sign-in' && pathname !== '/me') return [401, 'nobody is signed in'];
  let body = {};
  if (req.method === 'POST') {
    // A form of another site can't send this type. The cookie is SameSite besides.
    if (req.headers['content-type'] !== 'application/json') return [415, 'JSON'];
    let text = '';
    for await (const part of req.setEncoding('utf8')) {
      if ((text += part).length > 10_000) return [413, 'too much'];
    }
    try {
      body = Object(JSON.parse(text));
    } catch {
      return [400, 'no JSON'];
    }
  }
  return route(body, user, res, id);
}

const policy = `default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' http://${live} ws://${live}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
const server = http.createServer(async (req, res) => {
  res.setHeader('Content-Security-Policy', policy);
  res.setHeader('X-Content-Type-Options', 'nosniff');
  res.setHeader('Cache-Control', 'no-store');
  const [status, content] = await answer(req, res).catch((error) => [500, void console.error(error)]);
  const plain = content === undefined || typeof content === 'string' || Buffer.isBuffer(content);
  if (!res.hasHeader('Content-Type')) res.setHeader('Content-Type', plain ? 'text/plain; charset=utf-8' : 'application/json');
  res.writeHead(status).end(plain ? content : JSON.stringify(content));
});

const [, host, port] = /^(.*):(\d+)$/.exec(flags.listen);
server.on('error', (error) => {
  console.error(`--listen ${flags.listen}: ${error.message}`);
  process.exit(1);
});
server.listen(+port, host.replace(/^\[|\]$/g, '') || undefined, () => {
  startHubbub(); // not before: who can't listen would leave it behind
  console.log(`http://${flags.listen}`);
});

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    stopping = true;
    server.close();
    server.closeAllConnections();
    hubbub?.once('exit', () => process.exit(0));
    if (!hubbub?.kill('SIGTERM')) process.exit(0); // else its clients are told when to come back
  });
}
