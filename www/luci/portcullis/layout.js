// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
'require baseclass';
'require dom';

// LuCI's classes around our contents. E() and dom.content() take a bare string for HTML, and the
// strings of an array for text; so everything here is passed on in arrays.

return baseclass.extend({
	// Sets the contents of `node`, unless what they are made of (any value) is what it was.
	update(node, source, contents) {
		const fingerprint = JSON.stringify(source);

		if (node.portcullisSource === fingerprint)
			return;

		node.portcullisSource = fingerprint;
		dom.content(node, [ ...contents(source) ]);
	},

	section(title, contents) {
		return E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ title ]), ...contents ]);
	},

	value(title, contents, description) {
		return E('div', { 'class': 'cbi-value' }, [
			E('label', { 'class': 'cbi-value-title', 'for': contents[0].id || null }, [ title ]),
			E('div', { 'class': 'cbi-value-field' }, [
				...contents,
				...description ? [ E('div', { 'class': 'cbi-value-description' }, [ description ]) ] : []
			])
		]);
	},

	// What is so, as LuCI's status page lists it: rows are [ title, text ].
	facts(rows) {
		return E('table', { 'class': 'table' }, [
			...rows.map(([ title, text ]) => E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'width': '33%' }, [ title ]),
				E('td', { 'class': 'td left' }, [ text ])
			]))
		]);
	},

	// Rows are arrays of cells, and cells are strings or nodes.
	table(titles, rows, placeholder) {
		const cells = row => row.map((cell, at) => {
			return E('td', { 'class': 'td', 'data-title': titles[at] }, [ cell ]);
		});

		return E('table', { 'class': 'table cbi-section-table' }, [
			E('tr', { 'class': 'tr table-titles' }, [
				...titles.map(title => E('th', { 'class': 'th' }, [ title ]))
			]),
			...rows.map((row, at) => {
				return E('tr', { 'class': 'tr cbi-rowstyle-' + (at % 2 + 1) }, [ ...cells(row) ]);
			}),
			...rows.length ? [] : [ E('tr', { 'class': 'tr placeholder' }, [
				E('td', { 'class': 'td', 'colspan': titles.length }, [ E('em', {}, [ placeholder ]) ])
			]) ]
		]);
	},

	// A list to choose from: `options` are [ value, label, disabled ].
	select(options, chosen, attributes) {
		return E('select', { 'class': 'cbi-input-select', ...attributes }, [
			...options.map(([ value, label, disabled ]) => {
				return E('option', {
					'value': value,
					'selected': value === chosen ? '' : null,
					'disabled': disabled ? '' : null
				}, [ label ]);
			})
		]);
	}
});
