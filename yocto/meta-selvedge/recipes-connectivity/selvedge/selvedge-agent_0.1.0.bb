SUMMARY = "Encrypted pod network: the agent of gateways and edge nodes"
DESCRIPTION = "Joins a gateway to the routed, encrypted pod network of its cluster: IKEv2 and ESP tunnels, routes, firewall, \
               CNI network and Services, in one small program."

require selvedge.inc

SELVEDGE_FOLDER = "selvedge"
