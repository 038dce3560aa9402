#!/usr/bin/env bash
# Installs Debian's Chromium and its driver, with which the tests look at the report; does nothing where both are there.
here="${BASH_SOURCE[0]%"${BASH_SOURCE[0]##*/}"}"
source "${here:-./}debian.sh"
install_debian "Chromium and chromedriver" "chromium chromedriver" chromium chromium-driver
