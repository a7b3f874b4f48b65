//! The shapes and kinds of data that every stage is tried on: below, at and above every tile and block, one of
//! everything, heads as narrow as the paper's and narrower than a vector, and rows nobody needs.

/// What the numbers are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Normal,
    /// All timesteps are the same, so all scores are equal.
    Equal,
    /// Weights so large that one score takes all.
    Extreme,
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Sequences, and the index of the first within its step.
    pub n: usize,
    pub first: usize,
    pub t: usize,
    pub e: usize,
    pub h: usize,
    pub from: usize,
    pub kind: Kind,
}

const fn case(n: usize, first: usize, t: usize, e: usize, h: usize, from: usize) -> Case {
    Case { n, first, t, e, h, from, kind: Kind::Normal }
}

impl Case {
    /// How much further from the values their bounds may be than where numbers are well-conditioned: scores of hundreds
    /// turn their own rounding into relative errors, and a norm over one element answers nothing but its bias.
    pub fn slack(&self) -> f64 {
        match self {
            Self { e: 1, .. } => f64::INFINITY,
            Self { kind: Kind::Extreme, .. } => 300.0,
            _ => 1.0,
        }
    }

    /// The units that the unfused computation is done in, of which the middle one by its error counts. Where scores are a hundred and
    /// more, bf16 leaves them uncertain by one and more, and its largest error depends on whether it moves the largest two of a few
    /// scores together or apart: in two hundred units, that of the last case's first sequence lies between 0.56 and 4.7, half of
    /// them above 2.5, and is by chance 0.9 in units of one. The general kernel's is 2.981. So it is in float64 with nothing but that
    /// kernel's roundings, which differ in that the norm's weight is folded into the matrix.
    pub fn units(&self) -> &'static [f64] {
        if self.kind == Kind::Extreme { &[1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8] } else { &[1.0] }
    }

    /// How often one rounding is repeated: where all timesteps are the same, so are their errors.
    pub fn repeats(&self) -> usize {
        if self.kind == Kind::Equal { self.t } else { 1 }
    }
}

pub const CASES: &[Case] = &[
    case(1, 0, 1, 8, 1, 0),
    case(1, 3, 2, 10, 2, 1),
    case(3, 15, 15, 24, 3, 7),
    case(16, 0, 16, 8, 1, 0),
    case(3, 0, 17, 10, 2, 16),
    case(16, 7, 5, 96, 12, 2),
    case(1, 0, 63, 20, 1, 0),
    case(1, 0, 65, 40, 2, 31),
    case(1, 1, 255, 96, 12, 127),
    case(1, 0, 256, 96, 12, 128),
    case(1, 0, 129, 240, 12, 0),
    case(1, 0, 1, 1, 1, 0),
    case(1, 0, 7, 6, 2, 0),
    case(1, 0, 8, 48, 2, 1),
    case(2, 0, 9, 48, 3, 3),
    Case { kind: Kind::Equal, ..case(2, 0, 33, 24, 3, 0) },
    Case { kind: Kind::Extreme, ..case(2, 0, 33, 24, 3, 16) },
];
