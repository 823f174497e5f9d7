// SPDX-License-Identifier: GPL-2.0-or-later
// Keeps the block page true while it is open: loads it anew when it would say something else.

const title = document.querySelector('h1').textContent;

setInterval(async() => {
	try {
		const page = await (await fetch('/blocked')).text();
		if (!page.includes(`<h1>${title}</h1>`))
			location.reload();
	} catch {
		// The router is away; what is blocked stays so.
	}
}, 5000);
