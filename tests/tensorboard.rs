//! The event files, read back by a reader that shares nothing with the writer.

use gpt2meg::train::tensorboard::EventWriter;

/// CRC32C by its definition, bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !data.iter().fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

fn masked(data: &[u8]) -> u32 {
    let crc = crc32c(data);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// One field of a protobuf message: its number, and its content.
#[derive(Debug, PartialEq)]
enum Field {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(Vec<u8>),
    Fixed32([u8; 4]),
}

fn varint(data: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = data[0];
        *data = &data[1..];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn fields(mut data: &[u8]) -> Vec<(u64, Field)> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let mut take = |n: usize| {
            let (head, rest) = data.split_at(n);
            data = rest;
            head.to_vec()
        };
        let field = match key & 7 {
            1 => Field::Fixed64(take(8).try_into().unwrap()),
            5 => Field::Fixed32(take(4).try_into().unwrap()),
            0 => Field::Varint(varint(&mut data)),
            2 => {
                let n = varint(&mut data) as usize;
                let (head, rest) = data.split_at(n);
                data = rest;
                Field::Bytes(head.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

/// The payloads of an event file, each checked against both checksums.
fn records(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
        assert_eq!(u32::from_le_bytes(data[8..12].try_into().unwrap()), masked(&data[..8]));
        let payload = &data[12..12 + length];
        assert_eq!(u32::from_le_bytes(data[12 + length..16 + length].try_into().unwrap()), masked(payload));
        records.push(payload.to_vec());
        data = &data[16 + length..];
    }
    records
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn events_are_what_tensorboard_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(folder.path(), 41).unwrap();
    let steps = [(42, 5.25), (300, f64::NAN), (1 << 40, -1e-3)];
    for (step, nats) in steps {
        writer.scalars(step, &[("train/nats", nats), ("train/lr", 1e-4)]).unwrap();
    }
    // A second file beside the first, even within the same second.
    EventWriter::create(folder.path(), 0).unwrap();
    drop(writer);
    let mut paths: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 2);
    assert!(paths[0].file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));

    let events: Vec<_> = records(&std::fs::read(&paths[0]).unwrap()).iter().map(|payload| fields(payload)).collect();
    assert_eq!(events.len(), 2 + steps.len());
    for event in &events {
        let (1, Field::Fixed64(time)) = &event[0] else { panic!("{event:?}") };
        // After the year 2020: seconds, not milliseconds or a constant.
        assert!((1.577e9..1e10).contains(&f64::from_le_bytes(*time)), "{event:?}");
    }
    assert_eq!(events[0][2], (3, Field::Bytes(b"brain.Event:2".to_vec())));
    // SessionLog START at the next step: TensorBoard drops later steps of earlier files.
    assert_eq!(events[1][1], (2, Field::Varint(42)));
    assert_eq!(events[1][2], (7, Field::Bytes(vec![8, 1])));
    for ((step, nats), event) in steps.iter().zip(&events[2..]) {
        assert_eq!(event[1], (2, Field::Varint(*step)));
        let (5, Field::Bytes(summary)) = &event[2] else { panic!("{event:?}") };
        let values: Vec<_> = fields(summary)
            .into_iter()
            .map(|(number, field)| {
                let (1, Field::Bytes(value)) = (number, field) else { panic!("{event:?}") };
                let value = fields(&value);
                let (1, Field::Bytes(tag)) = &value[0] else { panic!("{value:?}") };
                let (2, Field::Fixed32(bits)) = &value[1] else { panic!("{value:?}") };
                (String::from_utf8(tag.clone()).unwrap(), f32::from_le_bytes(*bits).to_bits())
            })
            .collect();
        let expected =
            [("train/nats".to_string(), (*nats as f32).to_bits()), ("train/lr".to_string(), 1e-4f32.to_bits())];
        assert_eq!(values, expected);
    }
}
