SUMMARY = "A small gateway that joins a Selvedge network"
DESCRIPTION = "Boots, runs the agent and can be reached by ssh; its root is read-only if SELVEDGE_DATA says where else to write."
LICENSE = "Apache-2.0"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "selvedge"

IMAGE_FEATURES += "ssh-server-dropbear ${@"read-only-rootfs" if d.getVar("SELVEDGE_DATA") else ""}"
IMAGE_INSTALL = "packagegroup-core-boot packagegroup-selvedge ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_LINGUAS = ""
