// SPDX-License-Identifier: GPL-2.0-or-later
'use strict';
'require baseclass';
'require portcullis.daemon as daemon';
'require portcullis.words as words';

// The overview asks every five seconds, and leaves standing what an include showed last when
// asking fails or is paused. A state that old is no state any more.
const STALE = 15000;

let stale = null;

function banner(status) {
	const [ style, headline ] = words.headline(status);

	return E('div', { 'class': 'alert-message ' + style, 'data-portcullis': 'status' }, [
		E('h4', {}, [ headline ]),
		E('p', {}, [
			status.ok ? words.row(status).join(' ') : status.reason, ' ',
			E('a', {
				'href': L.url('admin/vpn/portcullis'),
				'style': 'color:inherit; text-decoration:underline'
			}, [ _('Kill Switch') ])
		])
	]);
}

return baseclass.extend({
	title: _('VPN Kill Switch'),

	load() {
		return daemon.status();
	},

	render(status) {
		window.clearTimeout(stale);

		if (status == null || status.code == 'denied')
			return null;

		const node = E('div', {}, [ banner(status) ]);

		stale = window.setTimeout(() => {
			node.replaceChild(banner({ ok: false, reason: _('The page is not being refreshed.') }),
				node.firstChild);
		}, STALE);

		return node;
	}
});
