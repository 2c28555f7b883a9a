# System variables: what SET takes and what is reported.
SELECT 1
SET autocommit=0
SELECT 1
SET autocommit=1
SET @@autocommit=0
SELECT 1
SET @@session.autocommit=1
SET SESSION sql_mode='ANSI_QUOTES'
SELECT 1
SET sql_mode=DEFAULT
SET sql_mode='NO_BACKSLASH_ESCAPES,NO_BACKSLASH_ESCAPES'
SELECT @@sql_mode
SET sql_mode=''
SET @@sql_mode='ANSI'
SELECT @@sql_mode
SET sql_mode='bogus'
SET SESSION sql_mode=DEFAULT
SET time_zone='+02:00'
SET time_zone='bogus'
SET time_zone='+5:00'
SELECT @@time_zone
SET time_zone=SYSTEM
SET foreign_key_checks=0
SET foreign_key_checks=ON
SET foreign_key_checks=2
SET foreign_key_checks='off'
SET sql_select_limit=5
SET sql_select_limit=DEFAULT
SET @@sql_select_limit=7
SELECT @@sql_select_limit
SET sql_select_limit=DEFAULT
SET NAMES latin1
SET NAMES utf8mb4 COLLATE utf8mb4_bin
SELECT @@collation_connection
SET NAMES utf8mb4
SET NAMES bogus
SET CHARACTER SET latin1
SET CHARACTER SET DEFAULT
SET NAMES DEFAULT
SELECT @@character_set_client,@@character_set_results,@@character_set_connection,@@collation_connection,@@character_set_database,@@collation_database,@@character_set_server,@@collation_server
SET collation_connection=utf8mb4_bin
SELECT @@character_set_connection
SELECT @@character_set_results
SET character_set_results=utf8mb4, collation_connection=latin1_swedish_ci
SET NAMES utf8mb4
SET timestamp=100
SELECT @@timestamp
SET timestamp=DEFAULT
SET insert_id=7
SELECT @@insert_id
SET insert_id=0
SET last_insert_id=9
SELECT LAST_INSERT_ID(), @@identity
SET identity=3
SELECT @@last_insert_id
SET wait_timeout=100
SET wait_timeout=0
SHOW WARNINGS
SELECT @@wait_timeout
SET wait_timeout=-1
SET wait_timeout='a'
SET wait_timeout=1.5
SET wait_timeout=99999999999
SELECT @@wait_timeout
SET lc_time_names='de_DE'
SET lc_time_names=bogus
SET lc_time_names=DEFAULT
SET group_concat_max_len=1
SHOW WARNINGS
SELECT @@group_concat_max_len
SET bogus=1
SET GLOBAL wait_timeout=5
SET hostname='x'
SET @@session.max_allowed_packet=1024
SET max_connections=5
SET bogus_a=1, wait_timeout=7
SELECT @@wait_timeout
SET wait_timeout=8, @x=1, foreign_key_checks=0
SET foreign_key_checks=1, wait_timeout='a'
SELECT @@foreign_key_checks,@@wait_timeout
SET session_track_schema=OFF
SET session_track_schema=ON
SET session_track_state_change=OFF
SET @a=1
SET session_track_state_change=ON
SET unique_checks=0
SET completion_type=1
SET completion_type=DEFAULT
SET lock_wait_timeout=3
SET innodb_lock_wait_timeout=2
SET sort_buffer_size=100000
SET sql_safe_updates=1
SET sql_safe_updates=0
SET div_precision_increment=5
SET auto_increment_increment=2
SET auto_increment_increment=1
SET sql_auto_is_null=1
SET sql_auto_is_null=0
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
SET SESSION TRANSACTION READ ONLY
SET SESSION TRANSACTION READ WRITE, ISOLATION LEVEL REPEATABLE READ
SET @@session.tx_isolation='SERIALIZABLE'
SET @@session.transaction_isolation='SERIALIZABLE'
SET max_sort_length=100
SET @a:=4, @@local.wait_timeout=9
SET @@global.wait_timeout=9
SET default_storage_engine=MyISAM
SET default_storage_engine=innodb
SET net_read_timeout=33
SELECT @@bogus
SELECT @@global.timestamp
SELECT @@session.hostname
SELECT @@port > 0
SELECT @@version
SET @@timestamp=1.5
SELECT @@timestamp
USE shop
USE nope
SELECT DATABASE()

