//! The syntax tree. Names are slices of the text.

/// A translation unit.
#[derive(Clone, Debug, Default)]
pub struct Unit<'a> {
    /// `.version`, as major * 10 + minor.
    pub version: u32,
    /// `.target`, the number of `sm_NN` (and a trailing `a` or `f` left out).
    pub target: u32,
    /// `.address_size`, 64 when not given.
    pub address_size: u32,
    /// `.file`: number and path.
    pub files: Vec<(u32, &'a str)>,
    /// Variables at module scope.
    pub variables: Vec<Variable<'a>>,
    /// Functions and kernels, declarations among them.
    pub functions: Vec<Function<'a>>,
    /// `.alias`: a name and the function that it stands for.
    pub aliases: Vec<(&'a str, &'a str)>,
}

/// Linkage of a variable or function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Linkage {
    /// None given: known in this unit only.
    #[default]
    Internal,
    /// `.visible`, `.weak`, `.common`.
    Visible,
    /// `.extern`.
    External,
}

/// `.global .align 4 .v2 .f32 name[3] = {…};`, also `.param` of functions and `.local`, `.shared`.
#[derive(Clone, Debug)]
pub struct Variable<'a> {
    /// Line, from 1.
    pub line: u32,
    /// Linkage.
    pub linkage: Linkage,
    /// State space without its dot: `global`, `param`, `reg`, …
    pub space: &'a str,
    /// `.align`, in bytes.
    pub align: Option<u64>,
    /// Elements of a vector type: 1, 2 or 4.
    pub vector: u64,
    /// Element type without its dot.
    pub element: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Elements in each dimension; None for `[]`.
    pub dimensions: Vec<Option<u64>>,
    /// First values, row by row; the rest is zero.
    pub initial: Vec<Initial<'a>>,
}

/// One element of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial<'a> {
    /// An integer.
    Integer(i128),
    /// The encoding of a float, as an f64.
    Float(f64),
    /// Bits of `0f…`.
    Bits32(u32),
    /// The address of a symbol, plus an offset; generic or not; or some of its bits (`0xFF00(symbol)`).
    Address {
        /// The symbol.
        name: &'a str,
        /// Bytes added to it.
        offset: i64,
        /// Whether it is `generic(…)`.
        generic: bool,
        /// Which bits of it are taken; the lowest of them becomes bit 0.
        mask: u64,
    },
}

/// `.func` or `.entry`.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// Line of its head, from 1.
    pub line: u32,
    /// Linkage.
    pub linkage: Linkage,
    /// Whether the host can launch it.
    pub entry: bool,
    /// Its name.
    pub name: &'a str,
    /// What it returns.
    pub returns: Vec<Variable<'a>>,
    /// What it takes.
    pub parameters: Vec<Variable<'a>>,
    /// `.maxntid` and the like: the word without its dot, and numbers.
    pub directives: Vec<(&'a str, Vec<u32>)>,
    /// None for a declaration.
    pub body: Option<Vec<Statement<'a>>>,
}

/// One statement of a body, in a flat list; braces open and close scopes.
#[derive(Clone, Debug)]
pub enum Statement<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(&'a str, u32),
    /// `.reg .b32 %r<5>, x;`: type, and names with their counts (1 for a plain name).
    Registers {
        /// Line, from 1.
        line: u32,
        /// Type without its dot.
        element: &'a str,
        /// Elements of a vector type: 1, 2 or 4.
        vector: u64,
        /// Names or prefixes; with a count, `name0` to `name(count - 1)`.
        names: Vec<(&'a str, Option<u32>)>,
    },
    /// `.param`, `.local`, `.shared`, `.global` or `.const` in a body.
    Variable(Variable<'a>),
    /// `.loc`: what follows comes from there.
    Location(Location<'a>),
    /// `label: .branchtargets a, b;` or `.calltargets`.
    Targets(&'a str, Vec<&'a str>),
    /// `label: .callprototype …;`
    Prototype(&'a str, Box<Function<'a>>),
    /// An instruction.
    Instruction(Instruction<'a>),
}

/// `.loc file line column, function_name …, inlined_at file line column`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location<'a> {
    /// The place itself.
    pub at: At,
    /// Label of the name of the inlined function.
    pub function: &'a str,
    /// The call that was inlined.
    pub inlined_at: Option<At>,
}

/// A place in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct At {
    /// Number of the file.
    pub file: u32,
    /// Line; 0 for code that comes from no line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// `@!p opcode.a.b operands;`
#[derive(Clone, Debug)]
pub struct Instruction<'a> {
    /// Line, from 1.
    pub line: u32,
    /// Its text, without the guard, in one line.
    pub text: &'a str,
    /// Guard predicate, and whether it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// The opcode's parts: `["ld", "global", "f32"]`.
    pub opcode: Vec<&'a str>,
    /// Its operands.
    pub operands: Vec<Operand<'a>>,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, symbol, label or special register.
    Name(&'a str),
    /// `!p`
    Not(&'a str),
    /// An integer.
    Integer(i128),
    /// A decimal float.
    Float(f64),
    /// `0f…`
    Bits32(u32),
    /// `0d…`
    Bits64(u64),
    /// `symbol+4`
    Offset(&'a str, i64),
    /// `{a, b}`
    Vector(Vec<Operand<'a>>),
    /// `[base+offset]`; further operands in the brackets (texture coordinates, …) follow the first.
    Memory(Vec<Operand<'a>>),
    /// `d|p`
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `(a, b)` of a call.
    List(Vec<Operand<'a>>),
}
