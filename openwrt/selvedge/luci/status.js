'use strict';
'require view';
'require poll';
'require rpc';
'require dom';

const callStatus = rpc.declare({ object: 'selvedge', method: 'status' });
const callServices = rpc.declare({ object: 'selvedge', method: 'services' });

/* Children are always in arrays: LuCI takes a lone string for HTML, and some of these texts come from strangers. */
function table(titles, rows, empty) {
	const head = E('tr', { 'class': 'tr table-titles' }, titles.map(title => E('th', { 'class': 'th' }, [ title ])));
	const body = rows.map(cells => E('tr', { 'class': 'tr' },
		cells.map((cell, i) => E('td', { 'class': 'td', 'data-title': titles[i] }, [].concat(cell)))));

	if (!body.length)
		body.push(E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ E('em', {}, [ empty ]) ]) ]));

	return E('table', { 'class': 'table' }, [ head ].concat(body));
}

function section(title, content) {
	return E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ title ]), content ]);
}

function bytes(count) {
	return '%1000.1mB'.format(count);
}

function certificate(notAfter) {
	if (notAfter == null)
		return '-';

	const left = notAfter - Math.floor(Date.now() / 1000);
	return left > 0 ? _('valid for %t').format(left) : _('expired');
}

function overview(status) {
	return table([ _('Name'), _('Configuration'), _('Datapath'), _('Firewall'), _('Certificate'), _('Version') ], [ [
		'%s (%s)'.format(status.name, status.role),
		_('generation %d from %s').format(status.config.generation, status.config.source),
		[ status.datapath, E('br'), E('small', {}, [ status.datapathReason ]) ],
		status.firewall,
		certificate(status.certificateNotAfter),
		status.version
	] ]);
}

function path(peer) {
	if (!peer.path)
		return '-';

	return '%s → %s %s'.format(peer.path.local, peer.path.remote, peer.path.encap ? _('(in UDP)') : '');
}

function state(peer) {
	const label = E('strong', {}, [ peer.state ]);
	return peer.lastError ? [ label, E('br'), E('small', {}, [ peer.lastError ]) ] : [ label ];
}

function tunnels(peers) {
	return table(
		[ _('Peer'), _('State'), _('Path'), _('Cipher'), _('Age'), _('Received'), _('Sent'), _('Dropped') ],
		peers.map(peer => [
			peer.name, state(peer), path(peer), peer.cipher || '-',
			peer.saAgeSeconds == null ? '-' : '%t'.format(peer.saAgeSeconds),
			bytes(peer.bytesIn), bytes(peer.bytesOut), '%d'.format(peer.droppedIn + peer.droppedOut)
		]),
		_('No peers are configured.'));
}

function services(list) {
	return table(
		[ _('Service'), _('Addresses'), _('Ports'), _('Endpoints') ],
		list.map(service => [
			'%s/%s'.format(service.namespace, service.name),
			service.clusterIps.join(', '),
			service.ports.map(port => '%s %d'.format(port.protocol, port.port)).join(', '),
			'%d'.format(service.ports.reduce((most, port) => Math.max(most, (port.endpoints || []).length), 0))
		]),
		_('No Services are served on this node.'));
}

function problems(status) {
	const texts = [];

	if (!status.running)
		texts.push(status.error);
	if (status.uciError)
		texts.push(_('/etc/config/selvedge is not used: %s').format(status.uciError));
	if (status.config?.error)
		texts.push(_('The configuration is refused, the last good one stays in force: %s').format(status.config.error));

	return texts.concat(status.problems || [], status.kernel || [], status.notes || []).map(text => E('div', { 'class': 'alert-message warning' }, [ text ]));
}

function refused(callers) {
	return table(
		[ _('From'), _('Name given'), _('Times'), _('Reason') ],
		callers.map(caller => [ caller.remote, caller.claimed || '-', '%d'.format(caller.times), caller.reason ]));
}

return view.extend({
	load() {
		return Promise.all([ callStatus(), callServices() ]);
	},

	content([ status, view ]) {
		const parts = problems(status);

		if (status.running) {
			parts.push(overview(status), section(_('Tunnels'), tunnels(status.peers)));
			if (view.list?.length || view.mode == 'kernel')
				parts.push(section(_('Services'), services(view.list || [])));
			if (status.refused.length)
				parts.push(section(_('Refused callers'), refused(status.refused)));
		}

		return parts;
	},

	render(data) {
		const body = E('div', {}, this.content(data));

		poll.add(() => this.load().then(fresh => dom.content(body, this.content(fresh))));

		return E([], [
			E('h2', {}, [ _('Selvedge') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('Tunnels of this gateway to the pod network of its cluster.') ]),
			body
		]);
	},

	handleSave: null,
	handleSaveApply: null,
	handleReset: null
});
