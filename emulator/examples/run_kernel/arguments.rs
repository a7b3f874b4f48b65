//! The command line's little language for arguments and shapes.

use std::path::Path;

use crate::array::{self, Array, Element};

/// An argument of the kernel.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A number, by its bytes.
    Value(Vec<u8>),
    /// A pointer to a buffer.
    Buffer { name: String, contents: Contents },
}

/// What a buffer holds before the launch.
#[derive(Clone, Debug)]
pub enum Contents {
    Array(Array),
    /// Nobody has written it yet.
    Unwritten {
        element: Element,
        shape: Vec<u64>,
    },
}

impl Contents {
    pub fn element(&self) -> Element {
        match self {
            Contents::Array(array) => array.element,
            Contents::Unwritten { element, .. } => *element,
        }
    }

    pub fn shape(&self) -> &[u64] {
        match self {
            Contents::Array(array) => &array.shape,
            Contents::Unwritten { shape, .. } => shape,
        }
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.shape().iter().product::<u64>() * self.element().bytes() as u64
    }
}

/// `TYPE:VALUE`, or `NAME=CONTENTS`.
pub fn parse(text: &str) -> Result<Argument, String> {
    if let Some((name, contents)) = text.split_once('=') {
        return Ok(Argument::Buffer { name: name.to_owned(), contents: parse_contents(contents)? });
    }
    let (element, value) = text.split_once(':').ok_or("neither TYPE:VALUE nor NAME=CONTENTS")?;
    Ok(Argument::Value(Element::parse(element)?.number(value)?))
}

/// `FILE.npy`, `FILE.npy:TYPE`, `TYPE[N,M]`, `zeros:TYPE[N,M]` or `random:TYPE[N,M]`.
fn parse_contents(text: &str) -> Result<Contents, String> {
    if let Some(random) = text.strip_prefix("random:") {
        let (element, shape) = parse_room(random)?;
        let bytes = array::random(element, shape.iter().product::<u64>() as usize);
        return Ok(Contents::Array(Array { element, shape, bytes }));
    }
    if let Some(zeros) = text.strip_prefix("zeros:") {
        let (element, shape) = parse_room(zeros)?;
        let bytes = vec![0; shape.iter().product::<u64>() as usize * element.bytes()];
        return Ok(Contents::Array(Array { element, shape, bytes }));
    }
    if text.ends_with(']') {
        let (element, shape) = parse_room(text)?;
        return Ok(Contents::Unwritten { element, shape });
    }
    match text.rsplit_once(':') {
        Some((file, element)) => Ok(Contents::Array(array::read(Path::new(file))?.narrowed(Element::parse(element)?)?)),
        None => Ok(Contents::Array(array::read(Path::new(text))?)),
    }
}

/// `TYPE[N,M]`.
fn parse_room(text: &str) -> Result<(Element, Vec<u64>), String> {
    let inner = text.strip_suffix(']').and_then(|text| text.split_once('['));
    let (element, extents) = inner.ok_or("room for elements is written TYPE[N] or TYPE[N,M]")?;
    let shape: Result<Vec<u64>, _> = extents.split(',').map(|extent| extent.trim().parse::<u64>()).collect();
    let shape = shape.map_err(|e| format!("[{extents}]: {e}"))?;
    let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    if elements.is_none_or(|elements| elements > 1 << 32) {
        return Err(format!("[{extents}] is more than the emulator's memory holds"));
    }
    Ok((Element::parse(element)?, shape))
}

/// Extents in x, y and z.
#[derive(Clone, Copy, Debug)]
pub struct Shape(pub [u32; 3]);

/// `X`, `X,Y` or `X,Y,Z`.
pub fn shape(text: &str) -> Result<Shape, String> {
    let mut extents = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("more than three dimensions".into());
    }
    for (extent, part) in extents.iter_mut().zip(parts) {
        *extent = part.trim().parse().map_err(|e| format!("{part:?}: {e}"))?;
        if *extent == 0 {
            return Err("an extent of zero".into());
        }
    }
    Ok(Shape(extents))
}

/// `NAME=FILE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, file) = text.split_once('=').ok_or("not NAME=FILE")?;
    Ok((name.to_owned(), file.to_owned()))
}
