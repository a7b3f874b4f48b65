//! Text to tokens.

use super::SyntaxError;

/// A token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// Names, directives, opcodes with all their parts: letters, digits, `_ $ % . ::`.
    Word(&'a str),
    /// An integer.
    Integer(u64),
    /// A decimal float.
    Float(f64),
    /// `0f…`
    Bits32(u32),
    /// `0d…`
    Bits64(u64),
    /// The inside of a string.
    Text(&'a str),
    /// Any other character.
    Mark(u8),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'a> {
    /// The token.
    pub token: Token<'a>,
    /// Its line, from 1.
    pub line: u32,
    /// Its first byte in the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// Cuts text into tokens.
///
/// # Errors
/// At a comment or string without an end, or a number that is none.
pub fn tokens(text: &str) -> Result<Vec<Spot<'_>>, SyntaxError> {
    let bytes = text.as_bytes();
    let mut spots = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    let error = |line, message: &str| SyntaxError { line, message: message.into() };
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            byte if byte.is_ascii_whitespace() || byte == 0 => {
                at += 1;
                continue;
            }
            b'/' if bytes[at..].starts_with(b"//") => {
                at = text[at..].find('\n').map_or(bytes.len(), |length| at + length);
                continue;
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                let length = text[at + 2..].find("*/").ok_or_else(|| error(line, "a comment does not end"))?;
                line += newlines(&text[at..at + 2 + length]);
                at += length + 4;
                continue;
            }
            b'"' => {
                let length = text[at + 1..].find('"').ok_or_else(|| error(line, "a string does not end"))?;
                at += length + 2;
                Token::Text(&text[start + 1..at - 1])
            }
            byte if byte.is_ascii_digit() => {
                while at < bytes.len() && is_number(bytes, at, start) {
                    at += 1;
                }
                number(&text[start..at]).ok_or_else(|| error(line, &format!("{} is no number", &text[start..at])))?
            }
            byte if is_word_start(byte) => {
                at += 1;
                // `.reg.b32` is two directives, `ld.b32` one opcode.
                let directive = byte == b'.';
                while at < bytes.len()
                    && (is_word(bytes[at]) || bytes[at..].starts_with(b"::"))
                    && !(directive && bytes[at] == b'.')
                {
                    at += if bytes[at] == b':' { 2 } else { 1 };
                }
                Token::Word(&text[start..at])
            }
            byte if byte.is_ascii() => {
                at += 1;
                Token::Mark(byte)
            }
            _ => return Err(error(line, "a character that PTX does not have")),
        };
        spots.push(Spot { token, line, start, end: at });
        if let Token::Text(inside) = token {
            line += newlines(inside);
        }
    }
    Ok(spots)
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u32
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.')
}

/// Whether the byte at `at` continues the number that began at `start`: a sign does so after an exponent's letter.
fn is_number(bytes: &[u8], at: usize, start: usize) -> bool {
    let decimal = !matches!(bytes.get(start + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D' | b'b' | b'B'));
    bytes[at].is_ascii_alphanumeric()
        || bytes[at] == b'.'
        || (decimal && matches!(bytes[at], b'+' | b'-') && matches!(bytes[at - 1], b'e' | b'E'))
}

fn number(text: &str) -> Option<Token<'_>> {
    let rest = text.get(2..).unwrap_or("");
    match text.get(..2) {
        Some("0f" | "0F") => {
            return (rest.len() == 8).then(|| u32::from_str_radix(rest, 16).ok().map(Token::Bits32))?;
        }
        Some("0d" | "0D") => {
            return (rest.len() == 16).then(|| u64::from_str_radix(rest, 16).ok().map(Token::Bits64))?;
        }
        _ => {}
    }
    if text.contains('.') || (text.contains(['e', 'E']) && !text.starts_with("0x") && !text.starts_with("0X")) {
        return text.parse().ok().map(Token::Float);
    }
    let text = text.strip_suffix(['u', 'U']).unwrap_or(text);
    let parsed = match text.get(..2) {
        Some("0x" | "0X") => u64::from_str_radix(&text[2..], 16),
        Some("0b" | "0B") => u64::from_str_radix(&text[2..], 2),
        _ if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8),
        _ => text.parse(),
    };
    parsed.ok().map(Token::Integer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<Token<'_>> {
        tokens(text).unwrap().into_iter().map(|spot| spot.token).collect()
    }

    #[test]
    fn words_keep_their_parts_and_labels_lose_their_colon() {
        assert_eq!(
            all("ld.shared::cta.f32 %tid.x $L__1: a:: .reg.b32"),
            [
                Token::Word("ld.shared::cta.f32"),
                Token::Word("%tid.x"),
                Token::Word("$L__1"),
                Token::Mark(b':'),
                Token::Word("a::"),
                Token::Word(".reg"),
                Token::Word(".b32")
            ]
        );
    }

    #[test]
    fn numbers_of_every_kind() {
        assert_eq!(
            all("0x1F 017 0b101 42U 1.5e-3 0f3F800000 0d3FF0000000000000 18446744073709551615"),
            [
                Token::Integer(31),
                Token::Integer(15),
                Token::Integer(5),
                Token::Integer(42),
                Token::Float(1.5e-3),
                Token::Bits32(0x3F80_0000),
                Token::Bits64(0x3FF0_0000_0000_0000),
                Token::Integer(u64::MAX)
            ]
        );
        assert!(tokens("0f12").is_err() && tokens("12x").is_err());
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let spots = tokens("a /* \n\n */ b // c\n\"x\ny\" d").unwrap();
        let lines: Vec<u32> = spots.iter().map(|spot| spot.line).collect();
        assert_eq!(lines, [1, 3, 4, 5]);
        assert_eq!(tokens("/*").unwrap_err().line, 1);
    }
}
