// draw.mjs SOURCE_DIR TARGET_DIR: each *.dot and *.mmd as NAME-light.svg and NAME-dark.svg.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Graphviz } from '@hpcc-js/wasm-graphviz';
import { renderMermaidSVG } from 'beautiful-mermaid';

const [source, target] = process.argv.slice(2);
// (Graphviz knows how wide Helvetica is, and Arial and its kin are as wide)
const font = 'Helvetica,Arial,sans-serif';
const themes = {
	light: { bg: '#ffffff', fg: '#1f2328', line: '#59636e' },
	dark: { bg: '#0d1117', fg: '#f0f6fc', line: '#9198a1' },
};
const graphviz = await Graphviz.load();

function dot(text, theme) {
	// the colours come in front of what the graph itself says
	const colours = `
		bgcolor = "${theme.bg}"
		fontname = "${font}"
		node [fontname = "${font}", fontsize = 12, margin = "0.2,0.08", color = "${theme.line}", fontcolor = "${theme.fg}"]
		edge [fontname = "${font}", fontsize = 10, color = "${theme.line}", fontcolor = "${theme.fg}"]`;
	return graphviz.dot(text.replace('{', '{' + colours), 'svg');
}

function mix(a, percent, b) {
	const part = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
	return '#' + [0, 1, 2].map(i => Math.round(part(a, i) * percent / 100 + part(b, i) * (1 - percent / 100)))
		.map(n => n.toString(16).padStart(2, '0')).join('');
}

function mermaid(text, theme) {
	// Not every viewer knows variables and mixtures of colours: they are worked out here.
	const muted = mix(theme.fg, 80, theme.bg);
	const colours = {
		'--bg': theme.bg, '--fg': theme.fg, '--_text': theme.fg, '--_text-sec': muted, '--_text-muted': muted,
		'--_text-faint': mix(theme.fg, 25, theme.bg), '--_line': theme.line, '--_arrow': theme.line,
		'--_node-fill': mix(theme.fg, 5, theme.bg), '--_node-stroke': theme.line, '--_group-fill': theme.bg,
		'--_group-hdr': mix(theme.fg, 5, theme.bg), '--_inner-stroke': mix(theme.fg, 12, theme.bg),
		'--_key-badge': mix(theme.fg, 10, theme.bg),
	};
	const svg = renderMermaidSVG(text, theme)
		.replace(/<style>[\s\S]*?<\/style>/, `<style>text { font-family: ${font}; }</style>\n<rect width="100%" height="100%" fill="${theme.bg}" />`)
		.replace(/ style="--bg:[^"]*"/, '')
		.replace(/var\((--[a-z_-]+)\)/g, (_, name) => colours[name]);
	if (/var\(|undefined/.test(svg))
		throw new Error('a colour of the picture is not known');
	return svg;
}

for (const file of readdirSync(source).sort()) {
	const [, name, kind] = file.match(/^(.*)\.(dot|mmd)$/) ?? [];
	if (!name)
		continue;
	const text = readFileSync(`${source}/${file}`, 'utf8');
	for (const [themeName, theme] of Object.entries(themes))
		writeFileSync(`${target}/${name}-${themeName}.svg`, (kind === 'dot' ? dot : mermaid)(text, theme).trimEnd() + '\n');
}
