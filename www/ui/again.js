// SPDX-License-Identifier: GPL-2.0-or-later
// The page is made of modules. Where one of them did not come (the router was just starting), none
// runs and nothing would ever be said: load the page again.

addEventListener('error', (event) => {
	if (event.target instanceof HTMLScriptElement)
		setTimeout(() => location.reload(), 1500);
}, true);
