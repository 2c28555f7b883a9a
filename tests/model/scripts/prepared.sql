# Prepared statements of both protocols; resets.
DROP TABLE IF EXISTS t
CREATE TABLE t(id INT PRIMARY KEY AUTO_INCREMENT, a INT, s VARCHAR(20), b BIGINT UNSIGNED, d DECIMAL(8,2), f DOUBLE)
INSERT INTO t VALUES(1,5,'x',7,1.5,2.5)
!prepare SELECT * FROM t
!execute 0
!prepare SELECT ?, id FROM t WHERE id=?
!execute 1 5 1
!execute 1 6 1
!again 1 7 1
M:!execute 1 null 1
!prepare INSERT INTO t(a,s) VALUES(?,?)
!execute 2 3 'q'
!execute 2 '7' null
SELECT LAST_INSERT_ID(), ROW_COUNT()
!prepare SELECT 1
!execute 3
!prepare SELECT ? + 1
!execute 4 1
!prepare SELEC
!prepare SELECT nope FROM t
!prepare SELECT * FROM nope
SHOW WARNINGS
!prepare SHOW WARNINGS
M:!execute 8
!prepare SET @a=?
!execute 9 'k'
SELECT @a
!execute 9 17
SELECT @a
!prepare SET autocommit=?
!execute 10 0
!execute 10 1
!prepare BEGIN
M:!execute 11
!prepare COMMIT
!execute 12
!prepare USE shop
!prepare SELECT @@autocommit, @a, DATABASE(), USER(), CONNECTION_ID()>0
!execute 14
SET @a='text'
M:!execute 14
!prepare SELECT NULL, 'a', 1.5, 1e0, 3000000000
!execute 15
!close 15
!execute 15
!reset-statement 15
!prepare SELECT ?
!long 16 0 abc
!long 16 0 def
!execute 16 ''
!long 16 0 abc
!reset-statement 16
!execute 16 'z'
!long 16 5 x
!execute 16 'z'
!execute 16 'z'
!reset-statement 16
!execute 16 'z'
!prepare SELECT id,a FROM t
!cursor 17
!fetch 17 1
!fetch 17 5
!fetch 17 1
SELECT 1
!cursor 17
!reset-statement 17
!fetch 17 1
!cursor 17
!fetch 17 3
!fetch 17 3
!reset-statement 17
M:!execute 17
!fetch 17 1
!prepare SELECT 1; SELECT 2
!prepare SELECT ?,?
!execute 19 'a'
!execute 19 'a' 1
!prepare CALL nope()
!prepare
PREPARE p FROM 'SELECT ?, @a'
EXECUTE p
SET @x=3
EXECUTE p USING @x
M:EXECUTE p USING @nope
EXECUTE q
EXECUTE P USING @x
DEALLOCATE PREPARE p
DEALLOCATE PREPARE p
DROP PREPARE p
PREPARE p FROM 'SELEC'
SET @q='SELECT 42'
PREPARE p FROM @q
EXECUTE p
PREPARE p FROM 'bogus bogus'
EXECUTE p
PREPARE p FROM 'BEGIN'
M:EXECUTE p
COMMIT
EXECUTE IMMEDIATE 'SELECT ?' USING 5
EXECUTE IMMEDIATE CONCAT('SELECT ',1)
PREPARE p FROM 'INSERT INTO t(a) VALUES(?)'
EXECUTE p USING @x
SELECT LAST_INSERT_ID(), ROW_COUNT()
PREPARE p FROM 'SELECT 1; SELECT 2'
PREPARE p FROM CONCAT('a')
!ping
!schema shop
!schema nope
SELECT DATABASE()
!schema test
SET @b=1, wait_timeout=7
SET NAMES latin1
!reset
SELECT @a, @b, @@wait_timeout, DATABASE(), LAST_INSERT_ID(), ROW_COUNT(), FOUND_ROWS()
SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@collation_connection
SELECT @@session_track_state_change, @@session_track_transaction_info, @@session_track_system_variables
EXECUTE p
!execute 0
!prepare SELECT 5
!execute 20
!execute 22
SELECT 1; SELECT 2
!multi off
SELECT 1; SELECT 2
!multi on
SELECT 1; SELECT 2
SELECT 1; SELEC 2; SELECT 3
SET @a=1; SELECT nope; SELECT 3
SELECT @a
SELECT 1;
BEGIN; SELECT 1; COMMIT
SELECT 1; SET @@autocommit=1; SET autocommit=0
SET autocommit=1; INSERT INTO t(a) VALUES(1); SELECT LAST_INSERT_ID(), ROW_COUNT()
!command 5 x
!command 80 x
!ping
INSERT INTO t(a) VALUES(1); INSERT INTO t(id) VALUES(1); SELECT 1
SHOW WARNINGS
SELECT COUNT(*) FROM t
DROP TABLE t
