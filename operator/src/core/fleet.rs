//! Agents in pods: which pod every node should have, and in which order a change reaches the nodes.
//!
//! ```text
//!   nodes (role, online, annotations) ─┐
//!   spec.agent ─► template per node ───┼─► plan ─► create, delete, mark; the record; what to tell
//!   pods as they are ──────────────────┘    ▲
//!                    since when (Memory) ───┘
//! ```
//!
//! A new pod is made beside the old one. The program in it waits until the other one of its node has ended, so image and
//! options are proven while the old one still works; the old pod goes as soon as the new one is ready, and the node is
//! done when the new one has stayed ready alone for a while.

mod observed;
mod plan;
mod record;
mod stage;
mod template;
#[cfg(test)]
mod tests;

#[cfg(test)]
use observed::Phase;
pub(crate) use observed::Pod;
pub(crate) use plan::{Action, Fleet, Halt, Memory, NodeView, Report, plan};
pub(crate) use record::Record;
pub(crate) use template::{LABEL_MARK, Program, selector};
