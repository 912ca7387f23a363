//! The architectures that gateways have, and the machines that QEMU makes of them.

use std::fmt;

use clap::ValueEnum;

/// An architecture that programs are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit PC.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM.
    Armv7,
    /// 32-bit MIPS, little endian.
    Mipsel,
    /// 32-bit MIPS, big endian.
    Mips,
}

/// How QEMU emulates one.
pub struct Machine {
    /// Its program.
    pub qemu: &'static str,
    /// Machine, processor, how many of them.
    pub arguments: &'static [&'static str],
    /// The device of the serial line.
    pub console: &'static str,
    /// Memory if nothing else is asked for.
    pub memory: &'static str,
    /// How time passes (`-icount`): an instruction takes two to the power of `shift` in nanoseconds, about as on a slow
    /// gateway, whatever else this machine does; while all wait, time is skipped.
    pub time: &'static str,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::X86_64, Self::Aarch64, Self::Armv7, Self::Mipsel, Self::Mips];

    /// As Rust names it.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
            Self::Armv7 => "armv7-unknown-linux-musleabihf",
            Self::Mipsel => "mipsel-unknown-linux-musl",
            Self::Mips => "mips-unknown-linux-musl",
        }
    }

    /// How it is emulated, always without KVM: the same everywhere.
    pub fn machine(self) -> Machine {
        match self {
            Self::X86_64 => Machine {
                qemu: "qemu-system-x86_64",
                arguments: &["-M", "q35", "-cpu", "max"],
                console: "ttyS0",
                memory: "1024M",
                time: "shift=0,sleep=off",
            },
            Self::Aarch64 => Machine {
                qemu: "qemu-system-aarch64",
                arguments: &["-M", "virt", "-cpu", "cortex-a53"],
                console: "ttyAMA0",
                memory: "768M",
                time: "shift=1,sleep=off",
            },
            Self::Armv7 => Machine {
                qemu: "qemu-system-arm",
                // Without addresses that a 32-bit kernel cannot reach, or it finds no PCI.
                arguments: &["-M", "virt,highmem=off", "-cpu", "cortex-a15"],
                console: "ttyAMA0",
                memory: "768M",
                time: "shift=1,sleep=off",
            },
            Self::Mipsel | Self::Mips => Machine {
                qemu: if self == Self::Mips { "qemu-system-mips" } else { "qemu-system-mipsel" },
                // The only processor of that board with the floating point that Debian's tools want.
                arguments: &["-M", "malta", "-cpu", "24Kf"],
                console: "ttyS0",
                memory: "512M",
                // Nothing is skipped: QEMU 7.2 sets that processor's timer to its next turn, 25 s on, before it raises the
                // interrupt, and would skip to there.
                time: "shift=2",
            },
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}
