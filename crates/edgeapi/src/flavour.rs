use std::time::Duration;

/// Which of the APIs it is: they speak the same words and mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// MetaServer of KubeEdge's edgecore.
    KubeEdge,
    /// lite-apiserver of SuperEdge.
    SuperEdge,
    /// yurthub of OpenYurt.
    OpenYurt,
    /// An API server.
    Kubernetes,
}

/// How often what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The length of a watch.
    pub watch: Duration,
    /// How long what was read is good without being read again.
    pub reconcile: Duration,
    /// The same after something changed, or went wrong.
    pub soon: Duration,
}

impl Flavour {
    /// As `--source` and `status` name it.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::KubeEdge => "kubeedge",
            Flavour::SuperEdge => "superedge",
            Flavour::OpenYurt => "openyurt",
            Flavour::Kubernetes => "kubernetes",
        }
    }

    /// Where it listens on a node, unless told otherwise.
    pub fn usual_server(self) -> Option<&'static str> {
        match self {
            Flavour::KubeEdge => Some("http://127.0.0.1:10550"),
            Flavour::SuperEdge => Some("https://127.0.0.1:51003"),
            Flavour::OpenYurt => Some("http://127.0.0.1:10261"),
            Flavour::Kubernetes => None,
        }
    }

    /// MetaServer ignores the version that a watch is to begin at, and begins with all it has stored: a short one is
    /// how to learn what an open one misses, and what happens between a list and the watch after it only another list
    /// tells. The others go on where the list ended.
    pub fn pace(self, metered: bool) -> Pace {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let soon = Duration::from_secs(15);
        match (self, metered) {
            (Flavour::KubeEdge, false) => Pace { watch: minutes(1), reconcile: minutes(5), soon },
            (Flavour::KubeEdge, true) => Pace { watch: minutes(1), reconcile: minutes(60), soon },
            (_, false) => Pace { watch: minutes(8), reconcile: minutes(60), soon: minutes(60) },
            (_, true) => Pace { watch: minutes(30), reconcile: minutes(12 * 60), soon: minutes(12 * 60) },
        }
    }

    /// MetaServer cuts every EndpointSlice of a list from the cloud to one endpoint at 127.0.0.1: of such a list only
    /// names and versions are true.
    pub fn lists_only_names_of_slices(self) -> bool {
        self == Flavour::KubeEdge
    }

    /// MetaServer answers 404 for whatever is not in its local store, in the same words as the API server.
    pub fn not_found_means_gone(self) -> bool {
        self != Flavour::KubeEdge
    }

    /// One object is read as a list of one: only lists tell whether they come from MetaServer's local store.
    pub fn reads_one_as_list(self) -> bool {
        self == Flavour::KubeEdge
    }
}
