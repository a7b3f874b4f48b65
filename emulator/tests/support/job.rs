//! What a test wants to have run: buffers, launches, and what came of them.

use ptx_emulator::count::Counters;
use ptx_emulator::machine::LaunchReport;
use ptx_emulator::watch::Finding;

/// Plain numbers that a buffer may hold.
pub trait Plain: Copy + 'static {
    fn to_bytes(values: &[Self]) -> Vec<u8>;
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Plain for $t {
            fn to_bytes(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            fn from_bytes(bytes: &[u8]) -> Vec<Self> {
                bytes.chunks_exact(size_of::<$t>()).map(|c| <$t>::from_le_bytes(c.try_into().expect("its size"))).collect()
            }
        }
    )*};
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, half::f16, half::bf16);

/// A buffer of a [`Job`], by its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buffer(pub usize);

/// An argument of a kernel.
#[derive(Clone, Debug)]
pub enum Arg {
    /// A pointer to a buffer.
    Pointer(Buffer),
    /// A value, by its bytes.
    Value(Vec<u8>),
}

impl From<Buffer> for Arg {
    fn from(buffer: Buffer) -> Self {
        Arg::Pointer(buffer)
    }
}

impl<T: Plain> From<T> for Arg {
    fn from(value: T) -> Self {
        Arg::Value(T::to_bytes(&[value]))
    }
}

/// A list of arguments of different types: `args![n, x, y]`.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::support::job::Arg::from($value)),*] };
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Step {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub cooperative: bool,
    pub args: Vec<Arg>,
}

/// Buffers and launches, in order.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// What each buffer holds at first; `None` for one that is not initialised, with its length.
    pub buffers: Vec<(usize, Option<Vec<u8>>)>,
    /// Variables of the module that are written before the launches.
    pub variables: Vec<(String, Vec<u8>)>,
    pub steps: Vec<Step>,
}

impl Job {
    pub fn new() -> Self {
        Job::default()
    }

    /// A buffer with these values; the kernel may change them.
    pub fn buffer<T: Plain>(&mut self, values: &[T]) -> Buffer {
        let bytes = T::to_bytes(values);
        self.buffers.push((bytes.len(), Some(bytes)));
        Buffer(self.buffers.len() - 1)
    }

    /// A buffer of `length` elements that nobody has written yet.
    pub fn output<T: Plain>(&mut self, length: usize) -> Buffer {
        self.buffers.push((length * size_of::<T>(), None));
        Buffer(self.buffers.len() - 1)
    }

    /// Writes a variable of the module.
    pub fn variable<T: Plain>(&mut self, name: &str, values: &[T]) {
        self.variables.push((name.to_owned(), T::to_bytes(values)));
    }

    /// Adds a launch. Grid and block may have one, two or three dimensions.
    pub fn launch(&mut self, kernel: &str, grid: impl Shape, block: impl Shape, args: Vec<Arg>) -> &mut Step {
        let step = Step {
            kernel: kernel.to_owned(),
            grid: grid.shape(),
            block: block.shape(),
            shared: 0,
            cooperative: false,
            args,
        };
        self.steps.push(step);
        self.steps.last_mut().expect("just pushed")
    }
}

/// A number of blocks or threads in up to three dimensions.
pub trait Shape {
    fn shape(self) -> [u32; 3];
}

impl Shape for u32 {
    fn shape(self) -> [u32; 3] {
        [self, 1, 1]
    }
}

impl Shape for (u32, u32) {
    fn shape(self) -> [u32; 3] {
        [self.0, self.1, 1]
    }
}

impl Shape for (u32, u32, u32) {
    fn shape(self) -> [u32; 3] {
        [self.0, self.1, self.2]
    }
}

/// What came of a job.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The buffers' bytes after the last launch that ran.
    pub buffers: Vec<Vec<u8>>,
    /// One report per launch; empty on a real GPU.
    pub reports: Vec<LaunchReport>,
    /// What the driver said, if it refused something or a launch failed.
    pub error: Option<String>,
}

impl Outcome {
    pub fn values<T: Plain>(&self, buffer: Buffer) -> Vec<T> {
        T::from_bytes(&self.buffers[buffer.0])
    }

    pub fn findings(&self) -> Vec<&Finding> {
        self.reports.iter().flat_map(|report| &report.findings).collect()
    }

    pub fn printed(&self) -> String {
        self.reports.iter().map(|report| report.printed.as_str()).collect()
    }

    /// The counters of a launch.
    pub fn counters(&self, launch: usize) -> &Counters {
        self.reports[launch].counters.as_ref().expect("counting is on")
    }

    /// All that was said, if anything was.
    pub fn complaint(&self) -> Option<String> {
        let said: Vec<String> = (self.findings().iter().map(|finding| finding.to_string()))
            .chain(self.reports.iter().filter_map(|report| report.fault.as_ref()).map(|fault| fault.message.clone()))
            .chain(self.error.clone())
            .collect();
        (!said.is_empty()).then(|| said.join("\n"))
    }

    /// Panics with all that was said, if anything was.
    pub fn clean(self, what: &str) -> Self {
        if let Some(said) = self.complaint() {
            panic!("{what}: {said}");
        }
        self
    }
}
