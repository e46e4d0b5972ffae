// The site of the docs, by VitePress: the Markdown files stay where they are and as they are.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitepress";
import { addresses, files, linked, others, repository, sidebar } from "../pages.js";

// Where the site lies on its server, "/docs/" say; and where files of the repository can be read that are no pages,
// "https://git.example.com/hubbub/tree/main/" say. Without that the names of such files are no links.
const { SITE_BASE = "/", SITE_REPOSITORY } = process.env;

export default defineConfig({
	title: "Hubbub",
	description: "A real-time messaging server: rooms over WebSocket, in one Go binary or as a library",
	lang: "en",
	base: SITE_BASE,
	srcDir: repository,
	srcExclude: others,
	rewrites: addresses,
	outDir: process.env.SITE_OUT ?? "../bin/site",
	cacheDir: "node_modules/.cache",
	ignoreDeadLinks: "localhostLinks",
	head: [["link", { rel: "icon", href: "data:," }]],
	themeConfig: {
		sidebar,
		outline: [2, 3],
		search: { provider: "local" },
	},
	markdown: {
		html: false, // the files are Markdown for any reader
		anchor: { slugify: anchorOf },
		config: (md) => {
			md.core.ruler.push("repository", ({ tokens, env }) => {
				for (const token of tokens) {
					if (token.type === "fence") token.info = token.info.replace(/^(hex|haproxy|caddyfile)\b/, "txt"); // nobody colours these
					relink(token.children ?? [], env);
				}
			});
		},
	},
	vite: {
		resolve: { alias: ["vue/server-renderer", "vue"].map(installed) },
		build: { chunkSizeWarningLimit: 4096 }, // the index of the search is one file
	},
});

// installed says where a package is, for the pages, which lie above the folder in which it is.
function installed(name) {
	const path = name === "vue" ? "vue/dist/vue.runtime.esm-bundler.js" : name; // its own main file is CommonJS
	return { find: new RegExp(`^${name}$`), replacement: fileURLToPath(import.meta.resolve(path)) };
}

// anchorOf is a heading's anchor by GitHub's rule, which the files' own links go by.
function anchorOf(heading) {
	return heading.trim().toLowerCase().replace(/ /g, "-").replace(/[^\p{L}\p{N}_-]/gu, "");
}

// relink has links between files lead to the files' pages.
function relink(tokens, env) {
	const from = files.find((file) => addresses[file] === env.relativePath || file === env.relativePath);
	let unlinked = false;
	for (const token of tokens) {
		if (token.type === "link_open") {
			const [link, anchor] = token.attrGet("href").split("#");
			if (link === "" || /^[a-z]+:/.test(link)) continue;
			const { path, page } = linked(from, link);
			if (page) token.attrSet("href", "/" + addresses[page] + (anchor ? "#" + anchor : ""));
			else if (SITE_REPOSITORY) token.attrSet("href", SITE_REPOSITORY + path);
			else unlinked = true;
		}
		const ends = token.type === "link_close";
		if (unlinked && (ends || token.type === "link_open")) Object.assign(token, { type: "text", tag: "", nesting: 0 });
		if (ends) unlinked = false;
	}
}
