//! Memory through the stand-in: copies of every kind, fills, and what is refused.

mod driver;

use cudarc::driver::result;
use driver::context;

#[test]
fn bytes_go_there_and_back() {
    let context = context();
    let stream = context.default_stream();
    let numbers: Vec<u32> = (0..1000).collect();
    let device = stream.clone_htod(&numbers).unwrap();
    let other = stream.clone_dtod(&device).unwrap();
    assert_eq!(stream.clone_dtoh(&other).unwrap(), numbers);
    let zeros = stream.alloc_zeros::<u32>(1000).unwrap();
    assert_eq!(stream.clone_dtoh(&zeros).unwrap(), vec![0; 1000]);
    let (free, total) = context.mem_get_info().unwrap();
    assert!(free < total);
    let _ = result::mem_get_info();
}
