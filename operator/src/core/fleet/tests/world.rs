//! A cluster without an API server: pods and nodes that do what kubelets would.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge_model::Role;
use serde_json::{Value, json};

use super::super::plan::Plan;
use super::super::template::{Job, Program};
use super::super::{Action, Fleet, Memory, NodeView, Phase, Pod, Record, plan};
use crate::api::{AgentMode, AgentSpec, NodeAgent};

pub(super) fn spec(image: &str) -> AgentSpec {
    let spec = json!({"image": format!("agent:{image}"), "connectorImage": format!("connector:{image}")});
    serde_json::from_value(spec).unwrap()
}

pub(super) struct World {
    pub(super) spec: AgentSpec,
    pub(super) nodes: BTreeMap<String, NodeView>,
    /// Pods and their images, by name.
    pub(super) pods: BTreeMap<String, (Pod, String)>,
    pub(super) record: Record,
    pub(super) memory: Memory,
    pub(super) now: Duration,
    made: u32,
}

impl World {
    /// `edges` edge nodes and a connector, nothing on them.
    pub(super) fn new(edges: usize, spec: AgentSpec) -> Self {
        let view = |name: &str, role| NodeView {
            uid: format!("uid of {name}"),
            role,
            online: true,
            agent: NodeAgent::default(),
            marked: None,
            token: false,
        };
        let mut nodes: BTreeMap<String, NodeView> =
            (0..edges).map(|i| format!("edge-{i:04}")).map(|name| (name.clone(), view(&name, Role::Edge))).collect();
        nodes.insert("cloud".to_owned(), view("cloud", Role::Connector));
        let (pods, record, memory) = (BTreeMap::new(), Record::default(), Memory::default());
        World { spec, nodes, pods, record, memory, now: Duration::ZERO, made: 0 }
    }

    /// One on which everything runs.
    pub(super) fn settled(edges: usize, spec: AgentSpec) -> Self {
        let mut world = World::new(edges, spec);
        world.settle();
        world
    }

    pub(super) fn plan(&mut self) -> Plan {
        let pods: Vec<Pod> = self.pods.values().map(|(pod, _)| pod.clone()).collect();
        let fleet =
            Fleet { namespace: "selvedge", spec: &self.spec, nodes: &self.nodes, pods: &pods, record: &self.record };
        plan(fleet, &mut self.memory, self.now)
    }

    /// Plans, and does what is planned.
    pub(super) fn turn(&mut self) -> Plan {
        let plan = self.plan();
        self.record = plan.record.clone();
        plan.actions.iter().for_each(|action| self.act(action));
        plan
    }

    /// As the API server and, for nodes that are offline, nobody would.
    fn act(&mut self, action: &Action) {
        match action {
            Action::Mark { node, program } => self.node(node).marked = Some(*program),
            Action::Unmark { node } => self.node(node).marked = None,
            Action::Create { node, pod } => {
                assert!(self.nodes[node].marked.is_some(), "{node} has a pod before it has a mark");
                let (name, pod, image) = self.create(pod);
                assert_eq!(pod.node, *node);
                self.pods.insert(name, (pod, image));
            }
            Action::Delete { name, force: true, .. } => drop(self.pods.remove(name)),
            Action::Delete { name, uid, .. } => {
                let (pod, _) = self.pods.get_mut(name).unwrap();
                assert_eq!(pod.uid, *uid);
                pod.deleting = true;
            }
        }
    }

    fn create(&mut self, pod: &Value) -> (String, Pod, String) {
        self.made += 1;
        let mut pod = pod.clone();
        let name = format!("{}{:05}", pod["metadata"]["generateName"].as_str().unwrap(), self.made);
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["uid"] = json!(self.made.to_string());
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        (name, Pod::read(&pod).unwrap(), image)
    }

    pub(super) fn node(&mut self, name: &str) -> &mut NodeView {
        self.nodes.get_mut(name).unwrap()
    }

    /// One step of a pod on a node that is online.
    pub(super) fn advance(&mut self, name: &str) {
        let Some((pod, image)) = self.pods.get_mut(name) else { return };
        let good = !image.ends_with("bad");
        match (pod.job, pod.phase) {
            _ if pod.deleting => drop(self.pods.remove(name)),
            (_, Phase::Pending) if good => pod.phase = Phase::Running,
            (_, Phase::Pending) => pod.trouble = Some("ImagePullBackOff".to_owned()),
            (Job::Agent, Phase::Running) => pod.ready = true,
            (Job::Clean, Phase::Running) => pod.phase = Phase::Succeeded,
            (_, Phase::Succeeded | Phase::Failed) => {}
        }
    }

    /// Every pod on a node that is online takes a step, and time passes.
    pub(super) fn step(&mut self) {
        let online = |pod: &Pod| self.nodes.get(&pod.node).is_some_and(|node| node.online);
        let names: Vec<String> =
            self.pods.iter().filter(|(_, (pod, _))| online(pod)).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.advance(name));
        self.now += Duration::from_secs(20);
    }

    /// Goes on until nothing is planned and nothing is waited for; gives up in the end.
    pub(super) fn settle(&mut self) {
        for _ in 0..2_000 {
            let (record, plan) = (self.record.clone(), self.turn());
            let before = self.pods.clone();
            self.step();
            if plan.actions.is_empty() && plan.wake.is_none() && plan.record == record && self.pods == before {
                return;
            }
        }
        panic!("does not come to an end: {:?}", self.plan());
    }

    pub(super) fn pods_of(&self, node: &str) -> Vec<&Pod> {
        self.pods.values().map(|(pod, _)| pod).filter(|pod| pod.node == node).collect()
    }

    pub(super) fn images(&self) -> BTreeMap<&str, usize> {
        let mut images = BTreeMap::new();
        self.pods.values().for_each(|(_, image)| *images.entry(&**image).or_default() += 1);
        images
    }

    /// Nodes that should have an agent and can have one.
    pub(super) fn concerned(&self) -> impl Iterator<Item = (&String, &NodeView)> {
        self.nodes.iter().filter(|(_, view)| view.online && self.spec.enabled && view.agent.mode == AgentMode::Pod)
    }

    /// Whether a node has one agent, and that works; what has ended takes nothing from it.
    pub(super) fn is_calm(&self, node: &str) -> bool {
        let program = Program::of(self.nodes[node].role);
        let pods: Vec<&Pod> = self.pods_of(node).into_iter().filter(|pod| pod.deleting || !pod.has_ended()).collect();
        matches!(&pods[..], [pod] if pod.ready && !pod.deleting && pod.program == program)
    }
}
