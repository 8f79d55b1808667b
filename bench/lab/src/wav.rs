//! WAV files: 16-bit PCM in, 16-bit mono PCM out.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// Sound of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wav {
    /// Samples a second.
    pub rate: u32,
    /// Samples, full scale at ±32,767.
    pub samples: Vec<i16>,
}

impl Wav {
    /// How long it lasts.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate.max(1))
    }

    /// Reads a file; of several channels the first.
    ///
    /// # Errors
    /// Where the file cannot be read or is not 16-bit PCM.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    /// Reads a file's bytes. A data chunk whose length was never filled in (its writer was ended) reaches to the end.
    ///
    /// # Errors
    /// Where they are not 16-bit PCM in a RIFF WAVE file.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            bail!("not a RIFF WAVE file");
        }
        let mut format = None;
        let mut rest = &bytes[12..];
        while let Some((header, body)) = rest.split_at_checked(8) {
            let stated = u32_at(header, 4).context("a chunk without length")? as usize;
            match &header[..4] {
                b"fmt " => format = Some(Format::parse(body).context("the format chunk is too short")?),
                b"data" => {
                    let format = format.context("data before format")?;
                    let end = if stated == 0 { body.len() } else { stated.min(body.len()) };
                    return format.samples(&body[..end]);
                }
                _ => {}
            }
            rest = body.get(stated.next_multiple_of(2)..).unwrap_or_default();
        }
        bail!("no data chunk")
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let data = u32::try_from(self.samples.len() * 2).unwrap_or(u32::MAX - 36);
        let mut bytes = Vec::with_capacity(44 + self.samples.len() * 2);
        bytes.extend(b"RIFF");
        bytes.extend((36 + data).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16u32.to_le_bytes());
        // PCM, one channel
        bytes.extend([1, 0, 1, 0]);
        bytes.extend(self.rate.to_le_bytes());
        bytes.extend((self.rate * 2).to_le_bytes());
        // octets a frame, bits a sample
        bytes.extend([2, 0, 16, 0]);
        bytes.extend(b"data");
        bytes.extend(data.to_le_bytes());
        bytes.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        bytes
    }

    /// Writes a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, self.to_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(Clone, Copy)]
struct Format {
    kind: u16,
    channels: u16,
    rate: u32,
    bits: u16,
}

impl Format {
    fn parse(body: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u16_at(body, 0)?,
            channels: u16_at(body, 2)?,
            rate: u32_at(body, 4)?,
            bits: u16_at(body, 14)?,
        })
    }

    fn samples(self, data: &[u8]) -> anyhow::Result<Wav> {
        // 1: PCM; 0xfffe: extensible, of which only PCM comes with 16 bits here.
        if !matches!(self.kind, 1 | 0xfffe) || self.bits != 16 || self.channels == 0 || self.rate == 0 {
            bail!("not 16-bit PCM (format {}, {} bits, {} channels)", self.kind, self.bits, self.channels);
        }
        let frame = usize::from(self.channels) * 2;
        let samples =
            data.chunks_exact(frame).map(|frame| i16::from_le_bytes([frame[0], frame[1]])).collect();
        Ok(Wav { rate: self.rate, samples })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let wav = Wav { rate: 8000, samples: vec![0, 1, -1, i16::MAX, i16::MIN] };
        assert_eq!(Wav::parse(&wav.to_bytes()).unwrap(), wav);
    }

    #[test]
    fn of_two_channels_the_first_is_read() {
        let mut bytes = Wav { rate: 8000, samples: vec![1, 2, 3, 4] }.to_bytes();
        bytes[22] = 2;
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 3]);
    }

    #[test]
    fn unfinished_and_padded_files_are_read() {
        let mut bytes = Wav { rate: 8000, samples: vec![1, 2, 3] }.to_bytes();
        bytes[40..44].fill(0);
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 2, 3]);
        bytes[40..44].fill(0xff);
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 2, 3]);
        bytes.splice(12..12, *b"LIST\x03\0\0\0abc\0");
        assert_eq!(Wav::parse(&bytes).unwrap().samples, [1, 2, 3]);
    }

    #[test]
    fn everything_else_is_refused() {
        let good = Wav { rate: 8000, samples: vec![1, 2, 3] }.to_bytes();
        for end in 0..44 {
            assert!(Wav::parse(&good[..end]).is_err() || end >= 44, "{end}");
        }
        let mut other = good.clone();
        other[34] = 24;
        assert!(Wav::parse(&other).is_err());
        other = good;
        other[20] = 7;
        assert!(Wav::parse(&other).is_err());
    }
}
