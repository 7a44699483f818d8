//! Thrift's compact protocol into a tree, with a limit on everything: parquet's footer and page headers are looked at
//! here before the parquet crate allocates what they declare.

/// A value. Numbers of all widths are one kind, unknown fields are kept.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    /// Its content is of no interest here.
    Double,
    /// The number of its bytes.
    Bytes(usize),
    List(Vec<Self>),
    Map,
    /// Field numbers and values.
    Struct(Vec<(i16, Self)>),
}

impl Value {
    pub(super) fn field(&self, number: i16) -> Option<&Self> {
        match self {
            Self::Struct(fields) => fields
                .iter()
                .find(|(field, _)| *field == number)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    pub(super) fn int(&self, number: i16) -> Option<i64> {
        match self.field(number) {
            Some(Self::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn list(&self, number: i16) -> Option<&[Self]> {
        match self.field(number) {
            Some(Self::List(values)) => Some(values),
            _ => None,
        }
    }
}

/// Parses the struct at the head of `bytes`: its value and the number of bytes it takes.
pub(super) fn parse_struct(
    bytes: &[u8],
    max_values: usize,
) -> Result<(Value, usize), &'static str> {
    let mut parser = Parser {
        rest: bytes,
        values_left: max_values,
    };
    let value = parser.structure(0)?;
    Ok((value, bytes.len() - parser.rest.len()))
}

/// Parquet's own structures are at most 10 deep.
const MAX_DEPTH: usize = 24;

struct Parser<'a> {
    rest: &'a [u8],
    values_left: usize,
}

impl Parser<'_> {
    fn structure(&mut self, depth: usize) -> Result<Value, &'static str> {
        if depth > MAX_DEPTH {
            return Err("metadata is nested too deeply");
        }
        let mut fields = Vec::new();
        let mut number = 0_i16;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                return Ok(Value::Struct(fields));
            }
            number = match head >> 4 {
                0 => i16::try_from(self.zigzag()?)
                    .map_err(|_| "metadata has a field number out of range")?,
                delta => number
                    .checked_add(i16::from(delta))
                    .ok_or("metadata has a field number out of range")?,
            };
            let value = match kind {
                1 => Value::Bool(true),
                2 => Value::Bool(false),
                kind => self.value(kind, depth)?,
            };
            if fields.iter().any(|(field, _)| *field == number) {
                return Err("metadata has a field twice");
            }
            fields.push((number, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, &'static str> {
        self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or("metadata has too many values")?;
        match kind {
            1 | 2 => Ok(Value::Bool(self.byte()? == 1)),
            3 => self
                .byte()
                .map(|byte| Value::Int(i64::from(byte.cast_signed()))),
            4..=6 => self.zigzag().map(Value::Int),
            7 => self.skip(8).map(|()| Value::Double),
            8 => {
                let length = self.length()?;
                self.skip(length)?;
                Ok(Value::Bytes(length))
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth + 1),
            13 => self.skip(16).map(|()| Value::Double),
            _ => Err("metadata has a value of unknown type"),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, &'static str> {
        if depth > MAX_DEPTH {
            return Err("metadata is nested too deeply");
        }
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            count => usize::from(count),
        };
        // Every element takes a byte at least: no count beyond the bytes, and no allocation ahead of them.
        if count > self.rest.len() {
            return Err("metadata declares a longer list than it holds");
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(head & 0x0f, depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, depth: usize) -> Result<Value, &'static str> {
        if depth > MAX_DEPTH {
            return Err("metadata is nested too deeply");
        }
        let count = self.length()?;
        if count == 0 {
            return Ok(Value::Map);
        }
        if count > self.rest.len() {
            return Err("metadata declares a longer map than it holds");
        }
        let kinds = self.byte()?;
        for _ in 0..count {
            self.value(kinds >> 4, depth + 1)?;
            self.value(kinds & 0x0f, depth + 1)?;
        }
        Ok(Value::Map)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("metadata ends early")?;
        self.rest = rest;
        Ok(byte)
    }

    fn skip(&mut self, count: usize) -> Result<(), &'static str> {
        self.rest = self.rest.get(count..).ok_or("metadata ends early")?;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("metadata has a number out of range")
    }

    fn zigzag(&mut self) -> Result<i64, &'static str> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn length(&mut self) -> Result<usize, &'static str> {
        usize::try_from(self.varint()?).map_err(|_| "metadata has a length out of range")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lists_and_structs() {
        // {1: -1, 2: "ab", 3: [1, 2], 5: {1: true}}
        let bytes = [
            0x15, 1, 0x18, 2, b'a', b'b', 0x19, 0x25, 2, 4, 0x2c, 0x11, 0, 0, 99,
        ];
        let (value, length) = parse_struct(&bytes, 100).unwrap();
        assert_eq!(length, bytes.len() - 1);
        assert_eq!(value.int(1), Some(-1));
        assert_eq!(value.field(2), Some(&Value::Bytes(2)));
        assert_eq!(
            value.list(3),
            Some([Value::Int(1), Value::Int(2)].as_slice())
        );
        assert_eq!(
            value.field(5),
            Some(&Value::Struct(vec![(1, Value::Bool(true))]))
        );
        assert!(parse_struct(&bytes, 3).is_err());
    }

    #[test]
    fn hostile_lengths_and_depths() {
        assert!(parse_struct(&[0x1c; 1000], 10_000).is_err());
        assert!(parse_struct(&[0x19; 1000], 10_000).is_err());
        assert!(
            parse_struct(
                &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
                100
            )
            .is_err()
        );
        assert!(parse_struct(&[0x19, 0xf3, 0xff, 0xff, 0xff, 0x7f], 100).is_err());
        assert!(
            parse_struct(
                &[
                    0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
                ],
                100
            )
            .is_err()
        );
    }
}
