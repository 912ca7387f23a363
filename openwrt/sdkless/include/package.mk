field = $(file >$(STAGE)/$(strip $(1)),$(strip $(2)))
script = $(if $(Package/$(PACKAGE)/$(1)),$(file >$(STAGE)/$(1),$(Package/$(PACKAGE)/$(1))))

BuildPackage = $(if $(filter $(1),$(PACKAGE)),$(eval $(Package/$(1))))

.PHONY: stage
stage:
	$(call Package/$(PACKAGE)/install,$(STAGE)/root)
	$(call field,version,$(PKG_VERSION)-r$(PKG_RELEASE))
	$(call field,depends,$(patsubst +%,%,$(filter-out @%,$(DEPENDS))))
	$(call field,arch,$(PKGARCH))
	$(call field,users,$(USERID))
	$(call field,section,$(SECTION))
	$(call field,url,$(URL))
	$(call field,license,$(PKG_LICENSE))
	$(call field,maintainer,$(PKG_MAINTAINER))
	$(call field,description,$(Package/$(PACKAGE)/description))
	$(call field,conffiles,$(Package/$(PACKAGE)/conffiles))
	$(call script,postinst)
	$(call script,prerm)
