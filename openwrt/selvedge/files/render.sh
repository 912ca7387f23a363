# shellcheck shell=sh disable=SC2034,SC3043
# Turns the sections "node" and "peer" of /etc/config/selvedge into the agent's configuration.
# To be sourced after /lib/functions.sh and /usr/share/libubox/jshn.sh.

# What the package adds to /etc/config/firewall.
SELVEDGE_FIREWALL="selvedge_ike selvedge_esp selvedge_forward selvedge_ping selvedge_input"
SELVEDGE_RUN=/var/run/selvedge
# Root's, as the run directory may belong to the agent's own user: what root writes there could go astray.
SELVEDGE_ETC=/var/etc/selvedge
SELVEDGE_RENDERED=$SELVEDGE_ETC/config.json
# Why the sections are not in force; missing if they are.
SELVEDGE_ERROR=$SELVEDGE_ETC/error

selvedge_item() {
	json_add_string "" "$1"
}

# selvedge_list SECTION OPTION FIELD
selvedge_list() {
	json_add_array "$3"
	config_list_foreach "$1" "$2" selvedge_item
	json_close_array
}

# selvedge_string SECTION OPTION [DEFAULT]
selvedge_string() {
	local value
	config_get value "$1" "$2" "$3"
	[ -z "$value" ] || json_add_string "$2" "$value"
}

selvedge_peer() {
	local enabled initiate metered port
	config_get_bool enabled "$1" enabled 1
	[ "$enabled" = 1 ] || return 0
	json_add_object ""
	selvedge_string "$1" name
	json_add_string via tunnel
	selvedge_list "$1" address addresses
	config_get port "$1" port 4500
	# What is no number is passed on as it is: the agent says which field it is.
	case "$port" in
	*[!0-9]*) json_add_string port "$port" ;;
	*) json_add_int port "$port" ;;
	esac
	config_get_bool initiate "$1" initiate 0
	json_add_boolean initiate "$initiate"
	config_get_bool metered "$1" metered 0
	json_add_boolean metered "$metered"
	selvedge_list "$1" prefix prefixes
	selvedge_list "$1" node_address nodeAddresses
	json_close_object
}

# selvedge_render GENERATION: prints the configuration; config_load comes before.
selvedge_render() {
	local name
	config_get name node name
	json_init
	json_add_int version 1
	json_add_int generation "$1"
	selvedge_string node name
	selvedge_string node node "${name#*.}"
	selvedge_string node role edge
	json_add_array podCidrs
	json_close_array
	json_add_object local
	selvedge_list node prefix prefixes
	selvedge_list node node_address nodeAddresses
	json_close_object
	json_add_array peers
	config_foreach selvedge_peer peer
	json_close_array
	selvedge_string node datapath
	selvedge_string node firewall
	json_dump
	json_cleanup
}

# selvedge_update STATE_DIR [OWNER]: brings the rendered file up to date, or leaves it and says why. The generation goes
# on from the last good copy, so that a boot with the same sections writes nothing to flash.
selvedge_update() {
	local new="$SELVEDGE_RENDERED.new" last="$SELVEDGE_RENDERED" generation reason
	(umask 022 && mkdir -p "$SELVEDGE_ETC")
	[ -s "$last" ] || last="$1/config.json"
	generation="$(jsonfilter -i "$last" -e '@.generation' 2>/dev/null)"
	selvedge_render "${generation:-1}" >"$new"
	if [ -n "$generation" ] && ! cmp -s "$new" "$last"; then
		selvedge_render $((generation + 1)) >"$new"
	fi
	if reason="$(/usr/sbin/selvedge-agent check "$new" 2>&1 >/dev/null)"; then
		rm -f "$SELVEDGE_ERROR"
		[ -z "$2" ] || chown "$2" "$new"
		if cmp -s "$new" "$SELVEDGE_RENDERED"; then rm -f "$new"; else mv -f "$new" "$SELVEDGE_RENDERED"; fi
	else
		rm -f "$new"
		reason="${reason#*"$new": }"
		printf '%s\n' "$reason" >"$SELVEDGE_ERROR"
		logger -t selvedge -p daemon.err "/etc/config/selvedge is not used: $reason"
	fi
}
