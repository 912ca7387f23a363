//! Which system this is, and how one adds to it what a kernel lacks.

use std::path::Path;

/// Families of systems that get their software in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// Modules are packages named `kmod-…`.
    OpenWrt {
        /// 25.12 and later.
        apk: bool,
    },
    /// Modules come with the kernel.
    Debian,
    /// Modules are packages named `kernel-module-…`.
    Yocto,
    /// Anything else.
    Other,
}

/// What brings a missing ability.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// Packages of OpenWrt.
    pub(crate) openwrt: &'static str,
    /// Modules of the kernel.
    pub(crate) modules: &'static str,
    /// Package of a program, elsewhere than on OpenWrt.
    pub(crate) package: &'static str,
    /// Options of the kernel.
    pub(crate) options: &'static str,
}

impl Platform {
    pub(crate) fn here() -> Self {
        let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::of(&text, Path::new("/usr/bin/apk").exists())
    }

    fn of(os_release: &str, apk: bool) -> Self {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_ascii_lowercase()
        };
        let names = format!("{} {}", value("ID"), value("ID_LIKE"));
        let is = |wanted: &[&str]| names.split_whitespace().any(|name| wanted.contains(&name));
        if is(&["openwrt", "lede"]) {
            Platform::OpenWrt { apk }
        } else if is(&["debian", "ubuntu"]) {
            Platform::Debian
        } else if is(&["poky", "nodistro", "openembedded", "yocto"]) {
            Platform::Yocto
        } else {
            Platform::Other
        }
    }

    /// What to do here, in words.
    pub(crate) fn remedy(self, source: &Source) -> String {
        let Source { openwrt, modules, package, options } = source;
        let mut ways = Vec::new();
        match self {
            Platform::OpenWrt { apk } if !openwrt.is_empty() => {
                ways.push(format!("{} {openwrt}", if apk { "apk add" } else { "opkg install" }));
            }
            Platform::Debian if !package.is_empty() => ways.push(format!("apt-get install {package}")),
            _ if !package.is_empty() => ways.push(format!("install {package}")),
            Platform::Yocto if !modules.is_empty() => {
                let packages = modules.split(' ').map(|m| format!("kernel-module-{}", m.replace('_', "-")));
                ways.push(format!("IMAGE_INSTALL += \"{}\"", packages.collect::<Vec<_>>().join(" ")));
            }
            _ if !modules.is_empty() => ways.push(format!("modprobe -a {modules}")),
            _ => {}
        }
        if !options.is_empty() {
            ways.push(format!("kernel: {options}"));
        }
        ways.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESP: Source = Source { openwrt: "kmod-ipsec4", modules: "esp4", package: "", options: "CONFIG_INET_ESP" };
    const NFT: Source = Source { openwrt: "nftables", modules: "", package: "nftables", options: "" };

    #[test]
    fn the_way_of_the_system_comes_first() {
        let systems = [
            ("ID=openwrt\nID_LIKE=\"lede openwrt\"", "opkg install kmod-ipsec4; kernel: CONFIG_INET_ESP"),
            ("ID=\"teltonika\"\nID_LIKE=\"openwrt\"", "opkg install kmod-ipsec4; kernel: CONFIG_INET_ESP"),
            ("ID=raspbian\nID_LIKE=debian", "modprobe -a esp4; kernel: CONFIG_INET_ESP"),
            ("ID=poky", "IMAGE_INSTALL += \"kernel-module-esp4\"; kernel: CONFIG_INET_ESP"),
            ("", "modprobe -a esp4; kernel: CONFIG_INET_ESP"),
        ];
        for (text, remedy) in systems {
            assert_eq!(Platform::of(text, false).remedy(&ESP), remedy, "{text}");
        }
        assert_eq!(Platform::of("ID=openwrt", true).remedy(&NFT), "apk add nftables");
        assert_eq!(Platform::of("ID=debian", true).remedy(&NFT), "apt-get install nftables");
        assert_eq!(Platform::of("ID=poky", true).remedy(&NFT), "install nftables");
    }
}
