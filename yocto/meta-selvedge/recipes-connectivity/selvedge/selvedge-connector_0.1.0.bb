SUMMARY = "Encrypted pod network: the end of all edges' tunnels"
DESCRIPTION = "Runs on one node that all gateways can reach, and forwards between their tunnels and the network beside it."

require selvedge.inc
