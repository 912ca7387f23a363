# What a package Makefile finds in an OpenWrt tree, as far as ours needs it: `make stage PACKAGE=... STAGE=...` puts a
# package's files and its control fields into a folder. For mkipk and mkapk; an SDK brings the real ones.
INCLUDE_DIR := $(TOPDIR)/include
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_CONF := install -m0600
INSTALL_DATA := install -m0644
