# The role, and what the login brought along (this script logs in as app2).
SELECT CURRENT_ROLE(), USER(), CURRENT_USER()
SET ROLE reader
SELECT CURRENT_ROLE()
SET ROLE nope
SELECT CURRENT_ROLE()
SET ROLE NONE
SELECT CURRENT_ROLE()
SET ROLE reader
!reset
SELECT CURRENT_ROLE()
USE shop
SET GLOBAL wait_timeout=5
