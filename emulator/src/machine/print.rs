//! `printf` of device code.

use super::core::{Core, OpSpace};
use super::trouble::{Outcome, Trouble};
use super::warp::Warp;
use crate::watch::FindingKind;

/// Reads up to 8 bytes at a generic address.
pub fn read(core: &mut Core<'_>, warp: &Warp, lane: u32, address: u64, bytes: u64) -> Outcome<u64> {
    let need = core.grid.need;
    let within = address & ((1 << 56) - 1);
    let wrong = |message: String| Trouble::new(FindingKind::OutOfBounds, lane, message);
    match Core::space_of(address) {
        OpSpace::Local => {
            let local = u32::try_from(within).map_err(|_| wrong(format!("reads local memory at {within:#x}")))?;
            let value = warp.local.read(lane as usize, local, bytes as u32, false);
            value.map_err(|_| wrong(format!("reads local memory at {within:#x}, out of bounds")))
        }
        space => {
            let region = core.region(space);
            let address = if space == OpSpace::Global { address } else { within };
            core.explain(&region, lane, address, bytes, 1, need, "reads")?;
            let mut value = [0u8; 8];
            let from = region.data.wrapping_add(address.wrapping_sub(region.base) as usize);
            // SAFETY: checked by `explain`; registered host memory is at its own address, as global memory is.
            unsafe { value.as_mut_ptr().copy_from(from, bytes as usize) };
            Ok(u64::from_le_bytes(value))
        }
    }
}

/// The string at a generic address, up to its zero.
pub fn string(core: &mut Core<'_>, warp: &Warp, lane: u32, address: u64) -> Outcome<String> {
    let mut bytes = Vec::new();
    while bytes.len() < 1 << 16 {
        match read(core, warp, lane, address + bytes.len() as u64, 1)? {
            0 => break,
            byte => bytes.push(byte as u8),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `printf` prints for a lane, and how many arguments it took: `values` is their address, each lies at a multiple of
/// its size.
pub fn format(core: &mut Core<'_>, warp: &Warp, lane: u32, format: u64, values: u64) -> Outcome<(String, u32)> {
    let format = string(core, warp, lane, format)?;
    let (mut next, mut taken) = (values, 0);
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|c| "-+ #0".contains(*c)) {
            spec.flags.push(flag);
        }
        let mut argument = |core: &mut Core<'_>, bytes: u64| -> Outcome<u64> {
            next = next.next_multiple_of(bytes);
            next += bytes;
            taken += 1;
            read(core, warp, lane, next - bytes, bytes)
        };
        let number = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = None;
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                number = Some(number.unwrap_or(0) * 10 + digit as usize - '0' as usize);
            }
            number
        };
        if rest.next_if_eq(&'*').is_some() {
            let width = argument(core, 4)? as i32;
            if width < 0 {
                spec.flags.push('-');
            }
            spec.width = width.unsigned_abs() as usize;
        } else {
            spec.width = number(&mut rest).unwrap_or(0);
        }
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = if rest.next_if_eq(&'*').is_some() {
                usize::try_from(argument(core, 4)? as i32).ok()
            } else {
                Some(number(&mut rest).unwrap_or(0))
            };
        }
        let (mut bytes, mut bits) = (4, 32);
        while let Some(modifier) = rest.next_if(|c| "hljztL".contains(*c)) {
            match modifier {
                // An argument that is passed as an int, and cut to a short or a char.
                'h' => bits /= 2,
                'L' => {}
                _ => (bytes, bits) = (8, 64),
            }
        }
        let bits = bits.max(8);
        let cut = |value: u64| value & (u64::MAX >> (64 - bits));
        match rest.next() {
            Some('%') => out.push('%'),
            Some('d' | 'i') => {
                let value = (argument(core, bytes)? << (64 - bits)) as i64 >> (64 - bits);
                spec.integer(&mut out, value < 0, &value.unsigned_abs().to_string());
            }
            Some('u') => {
                let value = cut(argument(core, bytes)?);
                spec.integer(&mut out, false, &value.to_string());
            }
            Some(c @ ('x' | 'X' | 'o')) => {
                let bits = cut(argument(core, bytes)?);
                let prefix = if spec.flags.contains('#') && bits != 0 { ["0x", "0X", "0"] } else { [""; 3] };
                let digits = match c {
                    'x' => format!("{}{bits:x}", prefix[0]),
                    'X' => format!("{}{bits:X}", prefix[1]),
                    _ => format!("{}{bits:o}", prefix[2]),
                };
                spec.integer(&mut out, false, &digits);
            }
            Some('p') => {
                let bits = argument(core, 8)?;
                spec.pad(&mut out, "", &format!("{bits:#x}"), false);
            }
            Some('c') => {
                let bits = argument(core, 4)?;
                spec.pad(&mut out, "", &char::from(bits as u8).to_string(), false);
            }
            Some('s') => {
                let address = argument(core, 8)?;
                let text = if address == 0 { "(null)".into() } else { string(core, warp, lane, address)? };
                let text: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
                spec.pad(&mut out, "", &text, false);
            }
            Some(c @ ('f' | 'F' | 'e' | 'E' | 'g' | 'G' | 'a' | 'A')) => {
                let value = f64::from_bits(argument(core, 8)?);
                spec.float(&mut out, value, c);
            }
            other => {
                let message = format!("printf does not know %{}", other.map(String::from).unwrap_or_default());
                return Err(Trouble::new(FindingKind::Undefined, lane, message));
            }
        }
    }
    Ok((out, taken))
}

/// Flags, width and precision of a conversion.
#[derive(Default)]
struct Spec {
    flags: String,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn sign(&self, negative: bool) -> &'static str {
        match () {
            () if negative => "-",
            () if self.flags.contains('+') => "+",
            () if self.flags.contains(' ') => " ",
            () => "",
        }
    }

    fn pad(&self, out: &mut String, sign: &str, body: &str, zeros: bool) {
        let missing = self.width.saturating_sub(sign.len() + body.chars().count());
        if self.flags.contains('-') {
            out.push_str(sign);
            out.push_str(body);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if zeros && self.flags.contains('0') {
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(body);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(sign);
            out.push_str(body);
        }
    }

    fn integer(&self, out: &mut String, negative: bool, digits: &str) {
        let least = self.precision.unwrap_or(1);
        let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
        self.pad(out, self.sign(negative), &digits, self.precision.is_none());
    }

    fn float(&self, out: &mut String, value: f64, kind: char) {
        let magnitude = value.abs();
        let sign = self.sign(value.is_sign_negative() && !value.is_nan());
        if !value.is_finite() {
            let body = if value.is_nan() { "nan" } else { "inf" };
            let body = if kind.is_ascii_uppercase() { body.to_uppercase() } else { body.into() };
            return self.pad(out, sign, &body, false);
        }
        let precision = self.precision.unwrap_or(6);
        let body = match kind.to_ascii_lowercase() {
            'f' => format!("{magnitude:.precision$}"),
            'e' => exponent(magnitude, precision),
            'g' => general(magnitude, precision.max(1), self.flags.contains('#')),
            _ => hexadecimal(magnitude),
        };
        let body = if kind.is_ascii_uppercase() { body.to_uppercase() } else { body };
        self.pad(out, sign, &body, true);
    }
}

/// `1.5e+02`
fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%g`: the shorter of `%e` and `%f` at that many significant digits.
fn general(value: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = exponent(value, precision - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let strip = |text: &str| {
        if keep_zeros || !text.contains('.') {
            text.to_string()
        } else {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
    };
    if power < -4 || power >= precision as i32 {
        let (digits, power) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        format!("{}e{power}", strip(digits))
    } else {
        let decimals = (precision as i32 - 1 - power).max(0) as usize;
        strip(&format!("{value:.decimals$}"))
    }
}

/// `0x1.8p+1`
fn hexadecimal(value: f64) -> String {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7FF) as i32, bits & ((1 << 52) - 1));
    let (lead, power) = match (exponent, fraction) {
        (0, 0) => (0, 0),
        (0, _) => (0, -1022),
        _ => (1, exponent - 1023),
    };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    format!("0x{lead}{}{digits}p{power:+}", if digits.is_empty() { "" } else { "." })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_c_prints_them() {
        let print = |flags: &str, width, precision, value, kind| {
            let mut out = String::new();
            Spec { flags: flags.into(), width, precision }.float(&mut out, value, kind);
            out
        };
        assert_eq!(print("", 0, None, 1.5, 'f'), "1.500000");
        assert_eq!(print("", 8, Some(2), -1.5, 'f'), "   -1.50");
        assert_eq!(print("0", 8, Some(2), -1.5, 'f'), "-0001.50");
        assert_eq!(print("", 0, Some(3), 12345.678, 'e'), "1.235e+04");
        assert_eq!(print("", 0, None, 0.0001, 'g'), "0.0001");
        assert_eq!(print("", 0, None, 1e10, 'g'), "1e+10");
        assert_eq!(print("", 0, None, 123456.0, 'g'), "123456");
        assert_eq!(print("", 0, None, 3.0, 'a'), "0x1.8p+1");
        assert_eq!(print("+", 0, None, f64::INFINITY, 'f'), "+inf");
    }

    #[test]
    fn integers_as_c_prints_them() {
        let print = |flags: &str, width, precision, negative, digits| {
            let mut out = String::new();
            Spec { flags: flags.into(), width, precision }.integer(&mut out, negative, digits);
            out
        };
        assert_eq!(print("0", 6, None, true, "42"), "-00042");
        assert_eq!(print("-", 6, None, false, "42"), "42    ");
        assert_eq!(print("", 6, Some(4), false, "42"), "  0042");
    }
}
