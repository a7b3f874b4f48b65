//! Memory through the stand-in: bytes there and back, fills, and how much is left.

mod driver;

use cudarc::driver::{result, sys};
use driver::context;

#[test]
fn bytes_go_there_and_back() {
    let context = context();
    let stream = context.default_stream();
    for length in [1usize, 3, 4, 255, 256, 257, 1000] {
        let numbers: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        let device = stream.clone_htod(&numbers).unwrap();
        let other = stream.clone_dtod(&device).unwrap();
        // A copy is not the original.
        drop(device);
        assert_eq!(stream.clone_dtoh(&other).unwrap(), numbers);
    }
    let zeros = stream.alloc_zeros::<u32>(1000).unwrap();
    assert_eq!(stream.clone_dtoh(&zeros).unwrap(), vec![0; 1000]);
}

/// Each width of fill, from the middle of an allocation, leaves its neighbours alone.
#[test]
fn fills_fill_what_they_should() {
    let context = context();
    let stream = context.default_stream();
    let before: Vec<u8> = (0..64).collect();
    for (width, at, count) in [(1usize, 5usize, 9usize), (2, 6, 5), (4, 8, 3), (1, 0, 64), (4, 60, 1), (2, 10, 0)] {
        let device = stream.clone_htod(&before).unwrap();
        let (address, _held) = cudarc::driver::DevicePtr::device_ptr(&device, &stream);
        let to = address + at as u64;
        // SAFETY: the range lies in the allocation.
        let status = unsafe {
            match width {
                1 => sys::cuMemsetD8_v2(to, 0xA1, count),
                2 => sys::cuMemsetD16_v2(to, 0xB2B1, count),
                _ => sys::cuMemsetD32_v2(to, 0xC4C3_C2C1, count),
            }
        };
        status.result().unwrap();
        let pattern: &[u8] = match width {
            1 => &[0xA1],
            2 => &[0xB1, 0xB2],
            _ => &[0xC1, 0xC2, 0xC3, 0xC4],
        };
        let mut want = before.clone();
        (0..width * count).for_each(|i| want[at + i] = pattern[i % width]);
        let mut got = vec![0; 64];
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_sync(&mut got, address).unwrap() };
        assert_eq!(got, want, "{count} times {width} bytes at {at}");
    }
}

#[test]
fn what_is_left_falls_by_what_is_taken() {
    let context = context();
    let (before, total) = context.mem_get_info().unwrap();
    assert!(before <= total);
    // SAFETY: freed below.
    let taken = unsafe { result::malloc_sync(64 << 20).unwrap() };
    let (meanwhile, still) = context.mem_get_info().unwrap();
    assert_eq!(still, total);
    // Other tests take and give back a little meanwhile.
    assert!(before - meanwhile >= 60 << 20, "{before} {meanwhile}");
    // SAFETY: taken above.
    unsafe { result::free_sync(taken).unwrap() };
    // SAFETY: as above; more than there is.
    assert!(unsafe { result::malloc_sync(total + 1) }.is_err());
}
