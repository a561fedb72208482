//! The library of espeak-ng, loaded where it is installed. It has one state for the whole process, so that calls wait for each other.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Names of the library on Linux and on macOS.
const FILES: [&str; 4] = ["libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.1.dylib", "libespeak-ng.dylib"];

/// `AUDIO_OUTPUT_SYNCHRONOUS`: no sound device is opened.
const SYNCHRONOUS: c_int = 2;
/// `espeakINITIALIZE_DONT_EXIT`: missing data are an error and do not end the process.
const DO_NOT_EXIT: c_int = 0x8000;
/// `espeakCHARS_UTF8`.
const UTF_8: c_int = 1;
/// IPA, with `_` between phonemes, as `phonemizer` asks for it.
const IPA: c_int = 0x02 | (b'_' as c_int) << 8;

type Initialize = unsafe extern "C" fn(c_int, c_int, *const c_char, c_int) -> c_int;
type Info = unsafe extern "C" fn(*mut *const c_char) -> *const c_char;
type SetVoice = unsafe extern "C" fn(*const c_char) -> c_int;
type SelectVoice = unsafe extern "C" fn(*mut Voice) -> c_int;
type ToPhonemes = unsafe extern "C" fn(*mut *const c_void, c_int, c_int) -> *const c_char;

/// The properties by which a voice is selected, `espeak_VOICE`.
#[repr(C)]
struct Voice {
    name: *const c_char,
    languages: *const c_char,
    identifier: *const c_char,
    gender: u8,
    age: u8,
    variant: u8,
    unused: u8,
    score: c_int,
    spare: *mut c_void,
}

/// The loaded library.
pub struct Library {
    version: String,
    functions: Mutex<Functions>,
    /// The names that [`has`](Self::has) was asked for, and whether each is a voice: rows ask for few, again and again.
    known: Mutex<BTreeMap<String, bool>>,
}

struct Functions {
    set_voice: SetVoice,
    select_voice: SelectVoice,
    to_phonemes: ToPhonemes,
    /// Keeps the functions in memory.
    _library: libloading::Library,
}

/// Returns the installed library; `None` if there is none, or if it cannot be initialized.
pub fn installed() -> Option<&'static Library> {
    static LOADED: OnceLock<Option<Library>> = OnceLock::new();
    LOADED.get_or_init(Library::load).as_ref()
}

impl Library {
    fn load() -> Option<Self> {
        // SAFETY: loading runs the initializers of the system's own library, which has none of consequence.
        let library = FILES.iter().find_map(|file| unsafe { libloading::Library::new(*file) }.ok())?;
        // SAFETY: the types are those of `espeak-ng/speak_lib.h`, which have not changed since version 1.49.
        let (initialize, info, set_voice, select_voice, to_phonemes) = unsafe {
            (
                *library.get::<Initialize>(b"espeak_Initialize\0").ok()?,
                *library.get::<Info>(b"espeak_Info\0").ok()?,
                *library.get::<SetVoice>(b"espeak_SetVoiceByName\0").ok()?,
                *library.get::<SelectVoice>(b"espeak_SetVoiceByProperties\0").ok()?,
                *library.get::<ToPhonemes>(b"espeak_TextToPhonemes\0").ok()?,
            )
        };
        // SAFETY: this is the only place that initializes, once for the process; no path means the library's own data.
        let rate = unsafe { initialize(SYNCHRONOUS, 0, std::ptr::null(), DO_NOT_EXIT) };
        if rate <= 0 {
            return None;
        }
        let mut data = std::ptr::null();
        // SAFETY: it returns a text that lives as long as the library, or nothing.
        let version = unsafe { info(&raw mut data) };
        if version.is_null() {
            return None;
        }
        // SAFETY: not null, and ends with a zero.
        let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        let functions = Mutex::new(Functions { set_voice, select_voice, to_phonemes, _library: library });
        Some(Self { version, functions, known: Mutex::default() })
    }

    /// The version, such as `1.51`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns whether there is a voice of this name.
    pub fn has(&self, voice: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_voice) = known.get(voice) {
            return *is_voice;
        }
        let is_voice = self.functions.lock().unwrap_or_else(PoisonError::into_inner).choose(voice).is_ok();
        known.insert(voice.to_owned(), is_voice);
        is_voice
    }

    /// Returns the phonemes of pieces of text in the order of the pieces, with the marks of words in other languages.
    ///
    /// # Errors
    /// When there is no such voice, or a piece contains a zero.
    pub fn phonemes(&self, voice: &str, pieces: &[&str]) -> Result<Vec<String>, String> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.choose(voice)?;
        pieces.iter().map(|piece| functions.phonemes(piece)).collect()
    }
}

impl Functions {
    fn choose(&self, voice: &str) -> Result<(), String> {
        let name = CString::new(voice).map_err(|error| error.to_string())?;
        // SAFETY: the name ends with a zero and outlives the call; the lock is held.
        if unsafe { (self.set_voice)(name.as_ptr()) } == 0 {
            return Ok(());
        }
        // The name of a language that is not that of a voice, such as `fr-fr`.
        let mut voice_of_language = Voice {
            name: std::ptr::null(),
            languages: name.as_ptr(),
            identifier: std::ptr::null(),
            gender: 0,
            age: 0,
            variant: 0,
            unused: 0,
            score: 0,
            spare: std::ptr::null_mut(),
        };
        // SAFETY: the structure is that of `espeak-ng/speak_lib.h` and outlives the call, as the name does; the lock is held.
        match unsafe { (self.select_voice)(&raw mut voice_of_language) } {
            0 => Ok(()),
            code => Err(format!("has no voice `{voice}` (code {code})")),
        }
    }

    /// Returns the phonemes of a piece, those of its clauses with a blank between them.
    fn phonemes(&self, piece: &str) -> Result<String, String> {
        let text = CString::new(piece).map_err(|error| error.to_string())?;
        let mut rest: *const c_void = text.as_ptr().cast();
        let mut clauses = Vec::new();
        while !rest.is_null() {
            // SAFETY: `rest` points into `text`, which outlives the call; the library moves it past the clause, or sets it to null at the
            // end. The lock is held.
            let clause = unsafe { (self.to_phonemes)(&raw mut rest, UTF_8, IPA) };
            if !clause.is_null() {
                // SAFETY: not null, ends with a zero, and valid until the next call.
                clauses.push(unsafe { CStr::from_ptr(clause) }.to_string_lossy().replace('_', ""));
            }
        }
        Ok(clauses.join(" "))
    }
}
