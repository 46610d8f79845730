//! `grpc-timeout`: up to eight digits and a unit
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use hyper::header::HeaderValue;
use std::time::Duration;

const DIGITS_MAX: usize = 8;

/// Reads it; `None` if it is not one.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| is_number)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes it, in milliseconds or the next unit that has room.
pub(crate) fn write(time: Duration) -> HeaderValue {
    let units = [(time.as_millis(), 'm'), (time.as_secs().into(), 'S')];
    let fits = |(number, _): &(u128, char)| *number < 10_u128.pow(DIGITS_MAX as u32);
    let (number, unit) = units.into_iter().find(fits).unwrap_or((99_999_999, 'H'));
    HeaderValue::try_from(format!("{number}{unit}")).unwrap_or(HeaderValue::from_static("1S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, time) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("5m", Duration::from_millis(5)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(time), "{text}");
        }
        for bad in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1.5S", "1 S", "\u{e9}S"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for time in [Duration::from_millis(1), Duration::from_millis(99_999_999)] {
            assert_eq!(read(write(time).to_str().expect("text")), Some(time));
        }
        let long = Duration::from_secs(365 * 86_400);
        assert_eq!(write(long).to_str().ok(), Some("31536000S"));
        assert_eq!(write(Duration::MAX).to_str().ok(), Some("99999999H"));
    }
}
