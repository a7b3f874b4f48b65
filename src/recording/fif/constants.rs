//! The numbers of the FIF format that we use, named as in the format's own documentation without the `FIFF_` prefix.

/// Blocks (`FIFFB_…`).
pub(super) mod block {
    pub const MEAS: i32 = 100;
    pub const MEAS_INFO: i32 = 101;
    pub const RAW_DATA: i32 = 102;
    pub const SUBJECT: i32 = 106;
    pub const ISOTRAK: i32 = 107;
    pub const HPI_RESULT: i32 = 109;
    pub const CONTINUOUS_DATA: i32 = 112;
    pub const CH_INFO: i32 = 113;
    pub const REF: i32 = 118;
    /// Raw data recorded with internal active shielding (MaxShield).
    pub const IAS_RAW_DATA: i32 = 119;
    pub const MNE_BAD_CHANNELS: i32 = 359;
    pub const MNE_ANNOTATIONS: i32 = 3810;
}

/// What a tag holds (`FIFF_…`).
pub(super) mod kind {
    pub const FILE_ID: i32 = 100;
    pub const DIR_POINTER: i32 = 101;
    pub const BLOCK_ID: i32 = 103;
    pub const BLOCK_START: i32 = 104;
    pub const BLOCK_END: i32 = 105;
    pub const FREE_LIST: i32 = 106;
    pub const NOP: i32 = 108;
    pub const PARENT_BLOCK_ID: i32 = 110;
    pub const REF_ROLE: i32 = 115;
    pub const REF_FILE_ID: i32 = 116;
    pub const REF_FILE_NUM: i32 = 117;
    pub const REF_FILE_NAME: i32 = 118;
    pub const NCHAN: i32 = 200;
    pub const SFREQ: i32 = 201;
    pub const DATA_PACK: i32 = 202;
    pub const CH_INFO: i32 = 203;
    pub const MEAS_DATE: i32 = 204;
    pub const COMMENT: i32 = 206;
    pub const FIRST_SAMPLE: i32 = 208;
    pub const DIG_POINT: i32 = 213;
    pub const LOWPASS: i32 = 219;
    pub const COORD_TRANS: i32 = 222;
    pub const HIGHPASS: i32 = 223;
    pub const DIG_STRING: i32 = 234;
    pub const LINE_FREQ: i32 = 235;
    pub const CH_SCAN_NO: i32 = 250;
    pub const CH_LOGICAL_NO: i32 = 251;
    pub const CH_KIND: i32 = 252;
    pub const CH_RANGE: i32 = 253;
    pub const CH_CAL: i32 = 254;
    pub const CH_LOC: i32 = 255;
    pub const CH_UNIT: i32 = 256;
    pub const CH_UNIT_MUL: i32 = 257;
    pub const CH_DACQ_NAME: i32 = 258;
    pub const CH_COIL_TYPE: i32 = 350;
    pub const CH_COORD_FRAME: i32 = 351;
    pub const DATA_BUFFER: i32 = 300;
    pub const DATA_SKIP: i32 = 301;
    pub const SUBJ_HIS_ID: i32 = 410;
    pub const MNE_COORD_FRAME: i32 = 3506;
    pub const MNE_CH_NAME_LIST: i32 = 3507;
    /// Onsets, in an annotations block.
    pub const MNE_BASELINE_MIN: i32 = 3568;
    /// Ends, in an annotations block.
    pub const MNE_BASELINE_MAX: i32 = 3569;
}

/// How a tag's data are encoded (`FIFFT_…`).
pub(super) mod data_type {
    pub const SHORT: u32 = 2;
    pub const INT: u32 = 3;
    pub const FLOAT: u32 = 4;
    pub const DOUBLE: u32 = 5;
    pub const USHORT: u32 = 7;
    pub const UINT: u32 = 8;
    pub const STRING: u32 = 10;
    pub const DAU_PACK16: u32 = 16;
    pub const COMPLEX_FLOAT: u32 = 20;
    pub const COMPLEX_DOUBLE: u32 = 21;
    pub const CH_INFO_STRUCT: u32 = 30;
    pub const ID_STRUCT: u32 = 31;
    pub const DIG_POINT_STRUCT: u32 = 33;
    pub const COORD_TRANS_STRUCT: u32 = 35;
}

/// Channel kinds (`FIFFV_…_CH`).
pub(super) mod channel {
    pub const MEG: i32 = 1;
    pub const EEG: i32 = 2;
    pub const STIM: i32 = 3;
    pub const EOG: i32 = 202;
    pub const REF_MEG: i32 = 301;
    pub const EMG: i32 = 302;
    pub const ECG: i32 = 402;
    pub const MISC: i32 = 502;
    pub const SEEG: i32 = 802;
    pub const DBS: i32 = 803;
    pub const ECOG: i32 = 902;
    pub const FNIRS: i32 = 1100;
}

/// Units (`FIFF_UNIT_…`).
pub(super) mod unit {
    pub const NONE: i32 = -1;
    pub const VOLT: i32 = 107;
    pub const TESLA: i32 = 112;
    pub const TESLA_PER_METRE: i32 = 201;
}

/// Coordinate frames (`FIFFV_COORD_…`).
pub(super) mod frame {
    pub const UNKNOWN: i32 = 0;
    pub const DEVICE: i32 = 1;
    pub const HEAD: i32 = 4;
}

/// Roles of a file that another refers to (`FIFFV_ROLE_…`).
pub(super) mod role {
    pub const PREV_FILE: i32 = 1;
    pub const NEXT_FILE: i32 = 2;
}

/// The version of the format that we write: 1.4.
/// What the first word of the machine's number in a file's id is in files of ours; the second is then a checksum of all
/// samples of the recording, so that its parts know each other.
pub(super) const CONTENT_MARK: u32 = u32::from_be_bytes(*b"gpt2");
/// Where the machine's number stands in a file: the id is the first tag, and begins with the format's version.
pub(super) const FILE_ID_MARK: u64 = 16 + 4;
pub(super) const VERSION: i32 = (1 << 16) | 4;

/// Seconds and microseconds that stand for "no date" in an id.
pub(super) const DATE_NONE: (i64, i64) = (0, i32::MAX as i64);

/// `next` of a tag: the next one follows at once, or there is none.
pub(super) const NEXT_SEQ: i32 = 0;
pub(super) const NEXT_NONE: i32 = -1;
