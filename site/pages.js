// Which Markdown files of the repository are pages of the site, where each is found there, and how they are grouped.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { fileURLToPath } from "node:url";

export const repository = dirname(dirname(fileURLToPath(import.meta.url)));

// A group's entries are files, or folders, which stand for all files in them that no longer entry names. So a new file
// of docs/ is found at the end of "Operate" until it is named elsewhere.
const groups = {
	Start: ["README.md", "docs/quickstart.md", "docs/recipes/", "docs/moving.md", "examples/"],
	Clients: ["js/README.md", "docs/protocol.md", "docs/delivery.md", "docs/auth.md", "docs/permissions.md"],
	Backend: ["docs/api.md", "docs/backends/", "docs/webhooks.md", "docs/questions.md"],
	Operate: [
		"docs/packages.md", "docs/settings.md", "docs/operations.md", "docs/deploy.md", "docs/upgrade.md",
		"docs/troubleshooting.md", "docs/security.md", "docs/drills.md", "docs/bench.md", "docs/",
	],
	Cluster: ["docs/cluster.md", "docs/scaling.md"],
	Reference: [
		"docs/architecture.md", "docs/locks.md", "docs/benchmarks.md", "bench/README.md", "testdata/",
		"CONTRIBUTING.md", "CHANGELOG.md",
	],
	Decisions: ["docs/decisions/"],
};

const entries = Object.values(groups).flat();

const entryOf = (file) =>
	entries.filter((e) => e === file || (e.endsWith("/") && file.startsWith(e))).sort((a, b) => b.length - a.length)[0];

// The pages, by their files: a top folder of the entries is looked through, but for what was installed there.
const folders = new Set(entries.filter((e) => e.includes("/")).map((e) => e.split("/")[0]));
export const files = [
	...readdirSync(repository),
	...[...folders].flatMap((folder) => markdownBelow(folder)),
].filter((file) => file.endsWith(".md") && entryOf(file)).sort();

function markdownBelow(folder) {
	return readdirSync(join(repository, folder), { withFileTypes: true }).flatMap((one) => {
		const path = posix.join(folder, one.name);
		if (!one.isDirectory()) return [path];
		return one.name === "node_modules" ? [] : markdownBelow(path);
	});
}

// What the generator isn't to look at: it takes all Markdown files below the repository else.
export const others = readdirSync(repository, { withFileTypes: true })
	.filter((one) => (one.isDirectory() ? !folders.has(one.name) : one.name.endsWith(".md") && !files.includes(one.name)))
	.map((one) => (one.isDirectory() ? one.name + "/**" : one.name));

// Where a file's page is: docs/ is the site's root, and a README its folder's page, unless docs/ has one of that name.
export const addresses = Object.fromEntries(files.map((file) => [file, addressOf(file)]));

function addressOf(file) {
	const address = file.replace(/^docs\//, "");
	if (files.includes("docs/" + posix.dirname(file) + ".md")) return address;
	return address.replace(/(^|\/)README\.md$/, "$1index.md");
}

// A page's title is its first heading, without marks.
const titleOf = (file) =>
	readFileSync(join(repository, file), "utf8").match(/^# +(.*)$/m)?.[1].replace(/[`*]/g, "") ?? file;

export const sidebar = Object.entries(groups).map(([text, names]) => ({
	text,
	collapsed: text === "Decisions",
	items: names.flatMap((name) => files.filter((file) => entryOf(file) === name))
		.map((file) => ({ text: file === "README.md" ? "What it is" : titleOf(file), link: "/" + addresses[file].replace(/(index)?\.md$/, "") })),
}));

// The page's file to which a link of another leads, with a folder's README or first page for the folder; undefined
// where it is no page.
export function linked(from, link) {
	const path = posix.normalize(posix.join(posix.dirname(from), link)).replace(/\/$/, "");
	const candidates = [path, posix.join(path, "README.md"), ...files.filter((file) => posix.dirname(file) === path)];
	return { path, page: candidates.find((file) => file in addresses) };
}
