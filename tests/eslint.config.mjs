// SPDX-License-Identifier: GPL-2.0-or-later
// What browsers load: LuCI's classes (www/luci), the web UI (www/ui), and the tests' own pages.

import js from '@eslint/js';
import globals from 'globals';

// Hosts and providers choose their own names: nothing may ever reach a parser of HTML.
const noMarkup = [
	{
		selector: 'MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML|srcdoc)$/]',
		message: 'Make text nodes; names from outside must not become HTML.',
	},
	{
		selector: 'MemberExpression[object.name="document"][property.name=/^(write|writeln)$/]',
		message: 'Make nodes; names from outside must not become HTML.',
	},
];

// In LuCI a bare string as contents is HTML, and one in an array is text.
const noBareContents = [
	{
		selector: 'CallExpression[callee.name="E"][arguments.1]'
			+ '[arguments.1.type!="ArrayExpression"][arguments.1.type!="ObjectExpression"]',
		message: 'E() takes a bare string for HTML: pass contents as [ … ].',
	},
	{
		selector: 'CallExpression[callee.name="E"][arguments.2][arguments.2.type!="ArrayExpression"]',
		message: 'E() takes a bare string for HTML: pass contents as [ … ].',
	},
	{
		selector: 'CallExpression[callee.object.name="dom"][callee.property.name=/^(content|append)$/]'
			+ '[arguments.1.type!="ArrayExpression"]',
		message: 'dom takes a bare string for HTML: pass contents as [ … ].',
	},
	{
		selector: 'CallExpression[callee.object.name="ui"]'
			+ '[callee.property.name=/^(addNotification|addTimeLimitedNotification|showModal)$/]'
			+ '[arguments.1.type!="ArrayExpression"]',
		message: 'ui takes a bare string for HTML: pass contents as [ … ].',
	},
];

const rules = {
	...js.configs.recommended.rules,
	'eqeqeq': 'off', // LuCI compares with ==
	'no-eval': 'error',
	'no-implied-eval': 'error',
	'no-new-func': 'error',
	'no-shadow': 'error',
	'no-var': 'error',
	'prefer-const': 'error',
	'semi': 'error',
};

// What LuCI's loader makes of 'require NAME [as ALIAS]'.
const required = [ 'baseclass', 'dom', 'poll', 'rpc', 'ui', 'view', 'daemon', 'layout', 'words' ];

export default [
	{
		files: [ 'www/luci/**/*.js' ],
		languageOptions: {
			ecmaVersion: 2020,
			sourceType: 'script',
			parserOptions: { ecmaFeatures: { globalReturn: true } },
			globals: {
				...globals.browser,
				...Object.fromEntries([ ...required, 'E', 'L', '_' ].map(name => [ name, 'readonly' ])),
			},
		},
		rules: { ...rules, 'no-restricted-syntax': [ 'error', ...noMarkup, ...noBareContents ] },
	},
	{
		files: [ 'www/ui/**/*.js' ],
		languageOptions: { ecmaVersion: 2022, sourceType: 'module', globals: globals.browser },
		rules: { ...rules, 'no-restricted-syntax': [ 'error', ...noMarkup ] },
	},
	{
		files: [ 'tests/luci/*.js' ], // the stand-in does what LuCI's loader and dom do
		languageOptions: {
			ecmaVersion: 2021,
			sourceType: 'script',
			globals: { ...globals.browser, E: 'readonly', L: 'readonly' },
		},
		rules: { ...rules, 'no-eval': 'off' },
	},
	{ ignores: [ '**/node_modules/**' ] },
];
