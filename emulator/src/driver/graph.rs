//! Graphs: captured work, made executable, launched again and again.

use std::sync::Arc;

use super::error::{Outcome, Status, fail, invalid};
use super::handle::Serial;
use super::hazards::Lane;
use super::schedule::Node;
use super::state::Locked;
use super::work::Work;

/// A node of a graph.
#[derive(Clone, Debug)]
pub struct GraphNode {
    /// What it does.
    pub work: Work,
    /// The nodes that it follows.
    pub after: Vec<usize>,
}

/// A graph.
#[derive(Debug)]
pub struct Graph {
    /// Its nodes; each follows only earlier ones.
    pub nodes: Arc<[GraphNode]>,
}

/// A graph that can be launched.
#[derive(Debug)]
pub struct Executable {
    /// The context that it was made in.
    pub context: Serial,
    /// As of the graph when it was made executable.
    pub nodes: Arc<[GraphNode]>,
    /// The end of its latest launch: launches of one executable follow each other.
    pub last: Option<Arc<Node>>,
}

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const DEVICE_LAUNCH: u64 = 4;
/// Auto free, upload, device launch, node priorities.
const FLAGS: u64 = 0xF;

impl Locked {
    /// Makes a graph executable.
    ///
    /// # Errors
    /// Flags that do not exist or exclude each other; launches from the device are not supported.
    pub fn instantiate(&mut self, graph: *mut std::ffi::c_void, flags: u64) -> Outcome<Serial> {
        let context = self.current()?;
        let nodes = self.graphs.get(graph)?.nodes.clone();
        if flags & !FLAGS != 0 {
            return invalid(format!("flags {flags:#x} for a graph: only {FLAGS:#x} exist"));
        }
        if flags & DEVICE_LAUNCH != 0 {
            if flags & AUTO_FREE_ON_LAUNCH != 0 {
                return invalid("a graph cannot be launched from the device and free its memory on launch");
            }
            return fail(Status::NOT_SUPPORTED, "the stand-in does not launch graphs from the device");
        }
        Ok(self.executables.insert(Executable { context, nodes, last: None }))
    }

    /// Launches an executable graph in a stream; in a capturing one, its nodes join the capture.
    ///
    /// # Errors
    /// Those of captures.
    pub fn launch_graph(&mut self, executable: *mut std::ffi::c_void, stream: Serial) -> Outcome<()> {
        let serial = self.executables.serial(executable)?;
        let (nodes, last) =
            self.executables.find(serial).map(|e| (e.nodes.clone(), e.last.clone())).unwrap_or_default();
        if self.capture_nodes(stream, &nodes)? {
            return Ok(());
        }
        let context = self.context_of(stream);
        // The launch as a whole has a place in the stream; inside it, only the graph's own edges order.
        let begin = self.append(stream, last.into_iter().collect(), Work::Marker);
        let mut submitted: Vec<Arc<Node>> = Vec::with_capacity(nodes.len());
        for (number, node) in nodes.iter().enumerate() {
            let mut dependencies = vec![begin.clone()];
            dependencies.extend(node.after.iter().map(|&index| submitted[index].clone()));
            submitted.push(self.enqueue(context, Lane::Graph(serial, number), dependencies, node.work.clone()));
        }
        let end = self.append(stream, submitted, Work::Marker);
        if let Some(executable) = self.executables.find_mut(serial) {
            executable.last = Some(end);
        }
        Ok(())
    }
}
